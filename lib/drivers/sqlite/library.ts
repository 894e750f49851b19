// The SQLite libraries that an engine runs on, behind one interface: node:sqlite, and better-sqlite3 on older versions of Node.js.

import { existsSync } from 'node:fs';
import { BackgroundTasksError } from '../../errors.js';
import type { SqliteDatabase, SqliteStatement } from './database.js';

export interface OwnDatabase extends SqliteDatabase {
  close(): void;
}

export interface OpenOptions {
  /** For how long a statement waits for other connections, in ms. */
  readonly timeout: number;
  readonly mustExist?: boolean;
}

export type Library = (path: string, options: OpenOptions) => OwnDatabase;

/** The library that is there on this version of Node.js. */
export const defaultLibrary: Library = (path, options) =>
  hasNodeSqlite(process.versions.node) ? nodeSqlite(path, options) : betterSqlite3(path, options);

/** From these versions on, it is no experiment, and prints no warning. */
export function hasNodeSqlite(version: string): boolean {
  const [major = 0, minor = 0] = version.split('.').map(Number);
  return major === 24 ? minor >= 15 : major > 25;
}

export const betterSqlite3: Library = (path, { timeout, mustExist = false }) => {
  const Database = loadBetterSqlite3();
  return new Database(path, { timeout, fileMustExist: mustExist });
};

export const nodeSqlite: Library = (path, { timeout, mustExist = false }) => {
  if (mustExist && !existsSync(path)) throw new Error(`"${path}" does not exist`);
  const { DatabaseSync }: { DatabaseSync: NodeDatabaseClass } = require('node:sqlite');
  return new AdaptedDatabase(new DatabaseSync(path, { timeout }));
};

type BetterSqlite3 = new (path: string, options: { timeout: number; fileMustExist: boolean }) => OwnDatabase;

function loadBetterSqlite3(): BetterSqlite3 {
  const major = installedMajor();
  if (major >= 13 && Number.parseInt(process.versions.node, 10) < 22) {
    // It would end the process with a segmentation fault, which nobody can catch.
    throw unavailable(`better-sqlite3 ${major} needs Node.js 22 or later; on Node.js 20 install better-sqlite3@12`);
  }
  try {
    return require('better-sqlite3');
  } catch (cause) {
    throw unavailable('install better-sqlite3, or run Node.js 24.15 or later, which has SQLite', { cause });
  }
}

/** Of better-sqlite3. 0 where it does not say so. */
function installedMajor(): number {
  try {
    const { version }: { version: string } = require('better-sqlite3/package.json');
    return Number.parseInt(version, 10);
  } catch {
    return 0;
  }
}

function unavailable(reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `sqlite: ${reason}`, options);
}

/** What is used of node:sqlite's `DatabaseSync`. */
export interface NodeDatabase {
  readonly isOpen: boolean;
  readonly isTransaction: boolean;
  prepare(sql: string): NodeStatement;
  exec(sql: string): void;
  close(): void;
}

export interface NodeStatement {
  run(...values: never[]): { changes: number | bigint };
  get(...values: never[]): unknown;
  all(...values: never[]): unknown[];
  setReadBigInts(enabled: boolean): void;
  setAllowUnknownNamedParameters(enabled: boolean): void;
}

type NodeDatabaseClass = new (path: string, options: { timeout: number }) => NodeDatabase;

export function isNodeDatabase(value: object): value is NodeDatabase {
  return 'isTransaction' in value && !('inTransaction' in value);
}

/** A database of node:sqlite as one of better-sqlite3. */
export class AdaptedDatabase implements OwnDatabase {
  readonly readonly = false; // node:sqlite does not tell. The first write does.
  readonly #database: NodeDatabase;

  constructor(database: NodeDatabase) {
    this.#database = database;
  }

  get open(): boolean {
    return this.#database.isOpen;
  }

  /** The property of node:sqlite throws once the database is closed. */
  get inTransaction(): boolean {
    return this.#database.isOpen && this.#database.isTransaction;
  }

  prepare(sql: string): SqliteStatement {
    return new AdaptedStatement(this.#database.prepare(sql));
  }

  exec(sql: string): void {
    this.#database.exec(sql);
  }

  close(): void {
    if (this.#database.isOpen) this.#database.close();
  }
}

class AdaptedStatement implements SqliteStatement {
  readonly #statement: NodeStatement;

  constructor(statement: NodeStatement) {
    statement.setAllowUnknownNamedParameters(true); // As better-sqlite3 takes objects that have more.
    this.#statement = statement;
  }

  run(...values: never[]): { changes: number } {
    return { changes: Number(this.#statement.run(...values).changes) };
  }

  get(...values: never[]): unknown {
    return this.#statement.get(...values);
  }

  all(...values: never[]): unknown[] {
    return this.#statement.all(...values);
  }

  safeIntegers(toggle: boolean): void {
    this.#statement.setReadBigInts(toggle);
  }
}
