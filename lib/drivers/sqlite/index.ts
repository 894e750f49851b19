/**
 * An engine on SQLite, with node:sqlite or better-sqlite3: stored tasks on one machine, without a server.
 *
 * @module sqlite
 */

import { resolve } from 'node:path';
import { createEngine } from '../../engine/create-engine.js';
import type { TaskEngine } from '../../engine/engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { type Check, type Checks, checkOptions } from '../../options.js';
import { ApplicationConnection, type Connection } from './connection.js';
import type { SqliteDatabase } from './database.js';
import { SqliteDriver } from './driver.js';
import { memory } from './file.js';
import { leaseOf } from './lease.js';
import { AdaptedDatabase, isNodeDatabase, type NodeDatabase } from './library.js';
import { OwnConnection } from './own-connection.js';

export type { SqliteDatabase, SqliteStatement } from './database.js';
export type { NodeDatabase, NodeStatement } from './library.js';

export type SqliteOptions = SqliteFileOptions | SqliteDatabaseOptions;

/** A file of the engine's own. */
export interface SqliteFileOptions extends SqliteTimes {
  /**
   * The file. It is created if it does not exist. Several processes of one machine may share it, but within a process that
   * has an engine, only its own SQLite library may open it (see docs/engines.md). An `enqueue` waits until the disk has the task. The
   * record of how a task ended does not wait: after a power failure, tasks that ended in the seconds before may run again.
   */
  path: string;
  database?: never;
}

/** A database that the application has opened. */
export interface SqliteDatabaseOptions extends SqliteTimes {
  /**
   * The application's own database, opened with better-sqlite3 or node:sqlite. An `enqueue` inside its open transaction
   * is part of that transaction, and so is one of another request if the transaction stays open across turns of the event loop. It
   * resolves when the task is written. The end of the transaction decides whether it is stored.
   *
   * The pragmas stay as the application has set them. They decide what survives a power failure, and how long a write
   * waits for other processes and blocks the event loop. `close()` leaves the database open.
   */
  database: SqliteDatabase | NodeDatabase;
  path?: never;
}

/** The options of both kinds. */
export interface SqliteTimes {
  /**
   * How long a worker that gives no sign of life keeps its tasks, in ms. Then others take them. A task that blocks the event loop
   * for longer may run twice. Default 15000.
   */
  lease?: number | undefined;
  /** How often workers look for tasks that other processes have enqueued, in ms. Default 250. */
  pollInterval?: number | undefined;
  /** How long the records of tasks are kept after their end, in ms. Default 7 days. Infinity keeps them for ever. */
  retention?: number | undefined;
}

/**
 * Returns an engine that keeps its tasks in an SQLite file. Times are those of this machine's clock.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options, `ERR_ENGINE_UNAVAILABLE` if the database cannot be
 * opened or written.
 * @example
 * const engine = sqlite({ path: 'tasks.db' });
 * app.use(backgroundTasks({ engine }));
 * await engine.work([sendMail, resizeImage]);
 */
export function sqlite(options: SqliteOptions): TaskEngine {
  const { lease = 15_000, pollInterval = 250, retention = sevenDays } = checked(options);
  return createEngine(new SqliteDriver(connect(options), { lease: leaseOf(lease), pollInterval, retention }));
}

const sevenDays = 7 * 24 * 60 * 60 * 1000;

function connect({ path, database }: SqliteOptions): Connection {
  try {
    return path === undefined ? new ApplicationConnection(adapted(database)) : new OwnConnection(absolute(path));
  } catch (error) {
    if (error instanceof BackgroundTasksError) throw error;
    const what = path === undefined ? 'the database cannot be used' : `"${path}" cannot be opened`;
    throw new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `sqlite: ${what}: ${error}`, { cause: error });
  }
}

/** The program may change its directory later, when the file has to be opened again. */
function absolute(path: string): string {
  const name = path.trim();
  return name === memory ? name : resolve(name);
}

const isTime: Check = (value) =>
  typeof value === 'number' && value >= 1 && value <= 2 ** 31 - 1 ? undefined : 'milliseconds, from 1 to 2147483647';

const checks: Checks<SqliteOptions> = {
  path: (value) => (typeof value === 'string' && value.trim() !== '' ? undefined : 'the name of a file'),
  database: (value) => (isDatabase(value) ? undefined : 'a database of better-sqlite3 or node:sqlite'),
  lease: isTime,
  pollInterval: isTime,
  retention: (value) => (typeof value === 'number' && value >= 0 ? undefined : 'milliseconds from 0, or Infinity'),
};

function checked(options: SqliteOptions): SqliteOptions {
  checkOptions('sqlite()', options, checks);
  const { path } = options;
  const database = options.database && adapted(options.database);
  const wrong =
    (path === undefined) === (database === undefined)
      ? 'give it either "path" or "database"'
      : database?.readonly
        ? 'the database is read-only'
        : database?.inTransaction
          ? 'the database has a transaction open, in which its table cannot be made'
          : undefined;
  if (wrong !== undefined) throw new BackgroundTasksError('ERR_INVALID_OPTION', `sqlite(): ${wrong}`);
  return options;
}

function isDatabase(value: unknown): boolean {
  return (
    typeof value === 'object' &&
    value !== null &&
    ['prepare', 'exec'].every((name) => typeof Reflect.get(value, name) === 'function') &&
    ['inTransaction', 'isTransaction'].some((name) => typeof Reflect.get(value, name) === 'boolean')
  );
}

function adapted(database: SqliteDatabase | NodeDatabase): SqliteDatabase {
  return isNodeDatabase(database) ? new AdaptedDatabase(database) : database;
}
