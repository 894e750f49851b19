// The engine's own connection to a file. It opens the file again when other processes would not find what it writes.

import type { Connection } from './connection.js';
import { type FilesLost, prepare, type SqliteDatabase, type SqliteStatement } from './database.js';
import { closeAside, openFile } from './file.js';
import { defaultLibrary, type Library, type OwnDatabase } from './library.js';
import { OpenFiles } from './open-files.js';

/** Those of this process. SQLite locks a file once for all of them, so they have to let go of it together. */
const connections = new Set<OwnConnection>();

export class OwnConnection implements Connection, SqliteDatabase {
  readonly readonly = false;
  readonly #path: string;
  readonly #library: Library;
  readonly #statements: OwnStatement[] = [];
  #database: OwnDatabase;
  #files: OpenFiles;
  #isDurable: boolean | undefined = undefined;
  /** False between two connections. An attempt to open the file again may have failed half-way. */
  #isReady = true;
  #isClosed = false;

  /** `path`: absolute, or `:memory:`. */
  constructor(path: string, library = defaultLibrary) {
    this.#path = path;
    this.#library = library;
    this.#database = openFile(library, path, { isFirst: true });
    this.#files = this.#look();
    connections.add(this);
  }

  get database(): SqliteDatabase {
    return this;
  }

  get open(): boolean {
    return !this.#isClosed;
  }

  get inTransaction(): boolean {
    return this.#database.inTransaction;
  }

  prepare(sql: string): SqliteStatement {
    const statement = new OwnStatement(sql, this.#database);
    this.#statements.push(statement);
    return statement;
  }

  exec(sql: string): unknown {
    return this.#database.exec(sql);
  }

  fault(): FilesLost | undefined {
    return this.#files.fault();
  }

  ensure(): void {
    if (this.#isClosed || (this.#isReady && this.fault() === undefined)) return;
    if (this.#isReady) for (const connection of connections) if (connection.#path === this.#path) connection.#letGo();
    this.#letGo();
    this.#database = openFile(this.#library, this.#path, { isFirst: false });
    this.#files = this.#look();
    this.#isDurable = undefined;
    for (const statement of this.#statements) statement.prepareOn(this.#database);
    this.#isReady = true;
  }

  setDurable(isDurable: boolean): void {
    if (isDurable === this.#isDurable) return;
    // Without a log, which not every file system allows, anything below FULL could corrupt the file.
    const hasLog =
      prepare<{ journal_mode: string }>(this.#database, 'PRAGMA journal_mode').get()?.journal_mode === 'wal';
    if (hasLog) this.#database.exec(`PRAGMA synchronous = ${isDurable ? 'FULL' : 'NORMAL'}`);
    this.#isDurable = isDurable;
  }

  close(): void {
    const isSound = this.#isReady && this.#isSound();
    this.#isClosed = true;
    connections.delete(this);
    if (!isSound) {
      this.#letGo();
      return;
    }
    this.#database.close(); // The last connection to a file writes its log back, and removes it.
    this.#files.close();
  }

  #isSound(): boolean {
    try {
      return this.fault() === undefined;
    } catch {
      return false; // The folder is out of reach, say.
    }
  }

  /** Checks the files that were just opened: another connection of this process may keep the lost locks. */
  #look(): OpenFiles {
    const files = new OpenFiles(this.#database, this.#path);
    const fault = files.fault();
    if (fault === undefined) return files;
    this.#files = files;
    this.#letGo();
    throw fault;
  }

  #letGo(): void {
    this.#isReady = false;
    if (!this.#database.open) return;
    // If the name leads to another file, SQLite leaves the log alone by itself.
    if (this.#files.isMoved()) this.#database.close();
    else closeAside(this.#library, this.#database, this.#files.realName);
    this.#files.close();
  }
}

/** A statement that is prepared again whenever the file is opened again. */
class OwnStatement implements SqliteStatement {
  readonly #sql: string;
  #statement: SqliteStatement;

  constructor(sql: string, database: OwnDatabase) {
    this.#sql = sql;
    this.#statement = database.prepare(sql);
  }

  prepareOn(database: OwnDatabase): void {
    this.#statement = database.prepare(this.#sql);
  }

  run(...values: unknown[]): { changes: number } {
    return this.#statement.run(...values);
  }

  get(...values: unknown[]): unknown {
    return this.#statement.get(...values);
  }

  all(...values: unknown[]): unknown[] {
    return this.#statement.all(...values);
  }

  safeIntegers(): void {} // Our own connection returns numbers.
}
