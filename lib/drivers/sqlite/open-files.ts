// Whether what a connection writes can be found by others: its files still have their names, and its locks still hold.
//
// POSIX drops all locks that a process has on a file as soon as any part of the process closes that file: another SQLite
// library, a copy of the folder. The next process to close its connection then believes that nobody else has the file open, and
// removes a log that is in use.

import { existsSync } from 'node:fs';
import { FilesLost, prepare, type SqliteDatabase } from './database.js';
import { OpenFile } from './open-file.js';

/** SQLite has this byte of the file locked for as long as there is a log, and that one of the log's index. */
const lockedByte = { file: 0x40000002, index: 128 };

export class OpenFiles {
  readonly #journalMode;
  readonly #lockingMode;
  /** As the file was opened, which may be by a link. */
  readonly #name: string;
  /** As SQLite has it. Empty for a database in memory. */
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

  /** Why what is written now may not be found by others. */
  fault(): FilesLost | undefined {
    if (this.realName === '') return undefined;
    if (this.#log === undefined && existsSync(this.#logName)) this.#look();
    const fault = this.#find();
    if (fault === undefined || this.#log?.isOpen() !== false) return fault;
    this.#look(); // The connection has closed its log by itself: the application has set another journal mode.
    return this.#find();
  }

  /** Whether another file has the name. */
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
    // Where only one process may use the file, the index is in its memory.
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
