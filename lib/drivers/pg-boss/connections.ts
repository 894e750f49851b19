// What statements run on: pg-boss's own connections, a transaction of ours, or one of the application.

import { unsupported } from '../../engine/calls.js';
import type { Boss, Db } from './boss.js';

/**
 * An insert that still waits for a connection of the pool when the time is up inserts nothing, since node-postgres asks these
 * values for their text behind that wait. What has been sent by then may be stored, although enqueue has rejected. A `db` of
 * the user's own may take no such values.
 */
export function unlessExpired(db: Db, expired: AbortSignal): Db {
  if (db._pgbdb !== true && db.transaction !== 'ours') return db;
  const late = (value: unknown): unknown =>
    typeof value === 'string' ? { toPostgres: () => (expired.aborted ? '[]' : value) } : value;
  return { transaction: db.transaction, executeSql: (text, values) => db.executeSql(text, values?.map(late)) };
}

/** On a `db` of the user's own each statement stands for itself. */
export function inTransaction<T>(db: Db, call: (db: Db) => Promise<T>): Promise<T> {
  if (db._pgbdb !== true || db.withTransaction === undefined) return call(db);
  return db.withTransaction((own) => call({ transaction: 'ours', executeSql: own.executeSql.bind(own) }));
}

/** @throws BackgroundTasksError `ERR_INVALID_OPTION` for what is no transaction. */
export function transactionDb(transaction: object, boss: Boss): Db {
  const { executeSql, query, totalCount, _pgbdb }: Partial<Transaction> = transaction;
  const isPool = totalCount !== undefined || _pgbdb === true || transaction === boss.getDb();
  if (!isPool && typeof executeSql === 'function') {
    return {
      transaction: "the application's",
      executeSql: async (text, values) => executeSql.call(transaction, text, values),
    };
  }
  if (!isPool && typeof query === 'function') {
    return {
      transaction: "the application's",
      executeSql: async (text, values) => query.call(transaction, text, values),
    };
  }
  const reason = isPool
    ? 'a pool runs each statement on a connection of its own: give it the client that the transaction runs on'
    : "give it a client of node-postgres, or what pg-boss's fromKnex, fromKysely, fromDrizzle or fromPrisma makes of a transaction";
  throw unsupported('pg-boss', 'within()', reason);
}

interface Transaction {
  /** What pg-boss's adapters make. */
  readonly executeSql: Db['executeSql'];
  /** node-postgres's client. */
  readonly query: Db['executeSql'];
  /** Of a pool. */
  readonly totalCount: unknown;
  readonly _pgbdb: unknown;
}
