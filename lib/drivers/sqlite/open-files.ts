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
  /** The name by which the file was opened, which may be a link. */
  readonly #name: string;
  /** The name without links, as SQLite has it. Empty for a database in memory. */
  readonly realName: string;
  #files: readonly OpenFile[] = [];
  #log: OpenFile | undefined = undefined;

  constructor(database: SqliteDatabase, name?: string) {
    this.#journalMode = prepare<{ journal_mode: string }>(database, 'PRAGMA journal_mode');
    this.#lockingMode = prepare<{ locking_mode: string }>(database, 'PRAGMA locking_mode');
    const databases = prepare<{ name: string; file: string }>(database, 'PRAGMA database_list').all();
    this.realName = databases.find((attached) => attached.name === 'main')?.file ?? '';
    this.#name = name ?? this.realName;
    this.#look();
  }

  /** Returns an error if other processes may not find what is written. */
  fault(): FilesLost | undefined {
    if (this.realName === '') return undefined;
    if (this.#log === undefined && existsSync(this.#logName)) this.#look();
    const fault = this.#find();
    if (fault === undefined || this.#log?.isOpen() !== false) return fault;
    this.#look(); // The connection itself has closed the log, since the application has set another journal mode.
    return this.#find();
  }

  /** Whether the name leads to another file now. */
  isMoved(): boolean {
    return this.#files[0]?.hasItsName() === false;
  }

  close(): void {
    for (const file of this.#files) file.close();
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
    const hasLog = this.#journalMode.get()?.journal_mode === 'wal';
    // In exclusive locking mode, the index of the log is in memory.
    const hasIndex = hasLog && this.#lockingMode.get()?.locking_mode === 'normal';
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
