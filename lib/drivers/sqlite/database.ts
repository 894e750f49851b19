// What the engine uses of a better-sqlite3 database.

export interface SqliteDatabase {
  readonly open: boolean;
  readonly readonly: boolean;
  readonly inTransaction: boolean;
  prepare(sql: string): SqliteStatement;
  exec(sql: string): unknown;
}

export interface SqliteStatement<Row = unknown> {
  run(...values: unknown[]): { changes: number };
  get(...values: unknown[]): Row | undefined;
  all(...values: unknown[]): Row[];
  safeIntegers(toggle: boolean): unknown;
}

/** The rows have the type that the SQL says. An application may have set its database to return integers as BigInt. */
export function prepare<Row>(database: SqliteDatabase, sql: string): SqliteStatement<Row> {
  const statement = database.prepare(sql) as SqliteStatement<Row>;
  if (/^(SELECT|PRAGMA)|RETURNING/.test(sql)) statement.safeIntegers(false);
  return statement;
}

/** Other processes would not find what is written. */
export class FilesLost extends Error {}

/** The database has a transaction open that is not ours, and what is written now would share its fate. */
export class TransactionOpen extends Error {
  constructor() {
    super("the application's own transaction has not ended");
  }
}

/** SQLITE_BUSY and SQLITE_LOCKED (https://sqlite.org/rescode.html). */
const busy = 5;
const locked = 6;

/** Whether the database is only in use: by another process, or by the application on the same connection. */
export function isBusy(error: unknown): boolean {
  if (error instanceof TransactionOpen) return true;
  const { code, errcode, message } = error as { code?: unknown; errcode?: unknown; message?: unknown };
  // better-sqlite3 has the name of the code, node:sqlite the number, whose last byte tells the kind.
  return (
    /^SQLITE_(BUSY|LOCKED)/.test(String(code)) ||
    [busy, locked].includes(Number(errcode) % 256) ||
    / busy executing a query/.test(String(message))
  );
}
