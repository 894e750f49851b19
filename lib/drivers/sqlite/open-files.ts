// Tells whether other processes will find what a connection writes: its files still have their names, and its locks hold.
//
// When any part of a process closes a file, such as another SQLite library or a copy of the folder, POSIX drops all locks that
// the process has on that file. The next process to close its connection then takes itself for the last one, and removes a log
// that is in use.

import { existsSync } from 'node:fs';
import { FilesLost, prepare, type SqliteDatabase } from './database.js';
import { OpenFile } from './open-file.js';

/** The bytes that SQLite keeps locked while a connection is open in WAL mode. */
const lockedByte = { file: 0x40000002, index: 128 };

export class OpenFiles {
  readonly #journalMode;
  readonly #lockingMode;
  readonly #read;
  /** The name by which the file was opened, which may be a link. */
  readonly #name: string;
  /** The name without links, as SQLite has it. Empty for a database in memory. */
  readonly realName: string;
  #files: readonly OpenFile[] = [];
  #log: OpenFile | undefined = undefined;
  /** Of journal and locking, when the files were looked at. */
  #modes = '';

  constructor(database: SqliteDatabase, name?: string) {
    this.#journalMode = prepare<{ journal_mode: string }>(database, 'PRAGMA journal_mode');
    this.#lockingMode = prepare<{ locking_mode: string }>(database, 'PRAGMA locking_mode');
    this.#read = prepare(database, 'SELECT 1 FROM sqlite_master LIMIT 1');
    const databases = prepare<{ name: string; file: string }>(database, 'PRAGMA database_list').all();
    const realName = databases.find((attached) => attached.name === 'main')?.file ?? '';
    // A database that was opened by a descriptor, say, has no name to compare.
    this.realName = name !== undefined || existsSync(realName) ? realName : '';
    this.#name = name ?? realName;
    this.#look();
  }

  /** Returns an error if other processes may not find what is written. */
  fault(): FilesLost | undefined {
    if (this.realName === '') return undefined;
    if (this.#log === undefined && existsSync(this.#logName)) this.#look();
    const fault = this.#find();
    if (fault === undefined || !this.#hasChangedItself()) return fault;
    this.#read.get(); // SQLite opens the log when it reads, not when the mode is set.
    this.#look();
    return this.#find();
  }

  /** Whether the name leads to another file now. */
  isMoved(): boolean {
    return this.#files[0]?.hasItsName() === false;
  }

  close(): void {
    for (const file of this.#files) file.close();
  }

  /** Whether the connection has other files since the application has set another mode. */
  #hasChangedItself(): boolean {
    return this.#readModes() !== this.#modes || this.#log?.isOpen() === false;
  }

  #readModes(): string {
    return `${this.#journalMode.get()?.journal_mode} ${this.#lockingMode.get()?.locking_mode}`;
  }

  #find(): FilesLost | undefined {
    for (const file of this.#files) {
      if (!file.hasItsName()) return new FilesLost(`"${file.name}" was removed or replaced`);
      if (file.isUnlocked()) {
        return new FilesLost(
          `the lock on "${file.name}" is gone: another SQLite library in this process, or a copy, has closed that file`,
        );
      }
    }
    return undefined;
  }

  #look(): void {
    this.close();
    if (this.realName === '') return;
    this.#modes = this.#readModes();
    const hasLog = this.#modes.startsWith('wal ');
    // In exclusive locking mode, the index of the log is in memory.
    const hasIndex = this.#modes === 'wal normal';
    this.#log = hasLog ? new OpenFile(this.#logName) : undefined;
    this.#files = [
      new OpenFile(this.realName, hasLog ? lockedByte.file : undefined),
      ...(this.#name === this.realName ? [] : [new OpenFile(this.#name)]),
      ...(this.#log === undefined ? [] : [this.#log]),
      ...(hasIndex ? [new OpenFile(`${this.realName}-shm`, lockedByte.index)] : []),
    ];
  }

  get #logName(): string {
    return `${this.realName}-wal`;
  }
}
