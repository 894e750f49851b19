// The SQLite engine, on better-sqlite3: durable tasks on one machine, without a server.

import Database from 'better-sqlite3';
import { monotonicTime, sleep } from '../../clock.js';
import { createEngine, unsupported } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskEngine, TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { BackgroundTasksError } from '../../errors.js';
import { type Check, type Checks, checkOptions } from '../../options.js';
import { GroupCommit } from './commits.js';
import { isBusy, type SqliteDatabase } from './database.js';
import { leaseOf } from './lease.js';
import { LeaseTable } from './leases.js';
import { migrate } from './schema.js';
import { type NewRow, rowOf, TaskTable } from './table.js';
import { Upkeep, type UpkeepSettings } from './upkeep.js';
import { UpkeepTable } from './upkeep-table.js';
import { type SqliteTables, SqliteWorker, type SqliteWorkerSettings } from './worker.js';

export type { SqliteDatabase, SqliteStatement } from './database.js';

export type SqliteOptions = SqliteTimes &
  (
    | {
        /**
         * The file. It is made where it does not exist; several processes of one machine may share it. An `enqueue` waits
         * until the disk has the task. How tasks went does not: after a loss of power, not of a process, those that ended
         * in the seconds before may run again.
         */
        path: string;
        database?: never;
      }
    | {
        /**
         * The application's own database, opened with better-sqlite3. An `enqueue` inside its open transaction is written in
         * that transaction, and so is one of another request if the transaction stays open across turns of the event loop.
         * It resolves once it is written: whether the task is stored is then what the end of the transaction says.
         *
         * Its pragmas stay as they are: what survives a loss of power, and how long a write waits for other processes and
         * blocks the event loop meanwhile, is what the application has set. `close()` leaves it open.
         */
        database: SqliteDatabase;
        path?: never;
      }
  );

interface SqliteTimes {
  /**
   * For how long a worker that says nothing is thought alive, in ms. Then its tasks are taken by others. A task that blocks
   * the event loop for longer may be run twice. Default 15000.
   */
  lease?: number | undefined;
  /** How often workers look for what other processes have enqueued, in ms. Default 250. */
  pollInterval?: number | undefined;
  /** How long tasks that are over can be asked for, in ms. Default 7 days. Infinity: for ever. */
  retention?: number | undefined;
}

/**
 * An engine that keeps its tasks in an SQLite file. Times are those of this machine's clock.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options, `ERR_ENGINE_UNAVAILABLE` where the database cannot be
 * opened or written.
 * @example
 * const engine = sqlite({ path: 'tasks.db' });
 * app.use(backgroundTasks({ engine }));
 * await engine.work([sendMail, resizeImage]);
 */
export function sqlite(options: SqliteOptions): TaskEngine {
  const { path, database, lease = 15_000, pollInterval = 250, retention = sevenDays } = checked(options);
  const settings = { lease: leaseOf(lease), pollInterval, retention };
  if (database !== undefined) {
    unlessUnavailable('the database cannot be used', () => migrate(database));
    return createEngine(new SqliteDriver(database, settings, { close: () => {}, setDurable: () => {} }));
  }
  const own = unlessUnavailable(`"${path}" cannot be opened`, () => open(path));
  return createEngine(
    new SqliteDriver(own, settings, {
      close: () => {
        own.close(); // The last connection to a file writes its log back, and removes it.
      },
      setDurable: (isDurable) => {
        if (isWal(own)) own.pragma(`synchronous = ${isDurable ? 'FULL' : 'NORMAL'}`);
      },
    }),
  );
}

/** What only the owner of a connection may do. */
interface Ownership {
  close(): void;
  /**
   * In WAL mode a commit that waits for the disk takes along all commits before it, so that those of workers need not wait.
   * With ten tasks at a time this is 13,000 tasks a second instead of 1,800, and the event loop does not stand still at the
   * end of each.
   */
  setDurable(isDurable: boolean): void;
}

const sevenDays = 7 * 24 * 60 * 60 * 1000;

/** For how long a call waits for a database that is in use, in ms: less than the deadline, so that its reason is told. */
const patience = 4000;

type Settings = Pick<SqliteWorkerSettings, 'lease' | 'pollInterval'> & Pick<UpkeepSettings, 'retention'>;

class SqliteDriver implements EngineDriver {
  readonly name = 'sqlite';
  readonly #database: SqliteDatabase;
  readonly #settings: SqliteWorkerSettings;
  readonly #ownership: Ownership;
  readonly #tables: SqliteTables;
  readonly #commits: GroupCommit;
  readonly #upkeep: Upkeep;
  readonly #workers = new Set<SqliteWorker>();

  constructor(database: SqliteDatabase, settings: Settings, ownership: Ownership) {
    this.#database = database;
    this.#settings = {
      ...settings,
      renewLeases: (now) => {
        for (const worker of this.#workers) worker.renewLeases(now);
      },
      onTakeable: () => this.#takeSoon(),
      onClosed: (worker) => {
        this.#workers.delete(worker);
        if (this.#workers.size === 0) this.#upkeep.stop();
      },
    };
    this.#ownership = ownership;
    this.#tables = { tasks: new TaskTable(database), leases: new LeaseTable(database) };
    this.#commits = new GroupCommit(database, (isDurable) => ownership.setDurable(isDurable));
    this.#upkeep = new Upkeep(new UpkeepTable(database), this.#commits, {
      lease: settings.lease.length,
      pollInterval: settings.pollInterval,
      retention: settings.retention,
      runner: () => [...this.#workers].find(({ isStopped }) => !isStopped)?.runner,
    });
  }

  /** In the application's open transaction, if there is one, whose end then decides about the task. */
  async insert(message: TaskMessage): Promise<string> {
    this.#checkOpen();
    if (/[\ud800-\udfff]/u.test(message.name)) throw unsupported('sqlite', 'name', 'it has half a surrogate pair');
    const row = rowOf(message);
    const id = this.#database.inTransaction ? this.#tables.tasks.insert(row) : this.#insertSoon(row);
    this.#takeSoon(); // In the transaction that stores it.
    return id;
  }

  work(runner: MessageRunner): SqliteWorker {
    this.#checkOpen();
    const worker = new SqliteWorker(this.#tables, this.#commits, runner, this.#settings);
    this.#workers.add(worker);
    this.#upkeep.start();
    return worker;
  }

  async find(id: string, { result }: { readonly result: boolean }): Promise<TaskRecord | undefined> {
    const end = monotonicTime() + patience;
    while (true) {
      this.#checkOpen();
      try {
        return this.#tables.tasks.find(id, result);
      } catch (error) {
        if (!isBusy(error) || monotonicTime() > end) throw error;
        await sleep(10);
      }
    }
  }

  async close(): Promise<void> {
    await this.#commits.idle();
    this.#ownership.close();
  }

  #takeSoon(): void {
    for (const worker of this.#workers) worker.takeSoon();
  }

  #checkOpen(): void {
    if (!this.#database.open) throw unavailable('the database is closed');
  }

  #insertSoon(row: NewRow): Promise<string> {
    const end = monotonicTime() + patience;
    let id = '';
    return new Promise((resolve, reject) => {
      this.#commits.add({
        isDurable: true,
        apply: () => {
          id = this.#tables.tasks.insert(row);
        },
        committed: () => resolve(id),
        failed: (error) => {
          if (isBusy(error) && monotonicTime() < end) return true;
          reject(error);
          return false;
        },
      });
    });
  }
}

function open(path: string): Database.Database {
  const major = installedMajor();
  if (major >= 13 && Number.parseInt(process.versions.node, 10) < 22) {
    // It would end the process with a segmentation fault, which nobody can catch.
    throw unavailable(`better-sqlite3 ${major} needs Node.js 22 or later; on Node.js 20 install better-sqlite3@12`);
  }
  const database = new Database(path);
  try {
    database.pragma('journal_mode = WAL');
    migrate(database);
    // From here on a lock is waited for without blocking the event loop.
    database.pragma('busy_timeout = 0');
    return database;
  } catch (error) {
    database.close();
    throw error;
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

/** Not every file system can have it, and memory cannot. */
function isWal(database: Database.Database): boolean {
  return database.pragma('journal_mode', { simple: true }) === 'wal';
}

function unavailable(what: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `sqlite: ${what}`, options);
}

function unlessUnavailable<T>(what: string, use: () => T): T {
  try {
    return use();
  } catch (error) {
    throw error instanceof BackgroundTasksError ? error : unavailable(`${what}: ${error}`, { cause: error });
  }
}

const isTime: Check = (value) =>
  typeof value === 'number' && value >= 1 && value <= 2 ** 31 - 1 ? undefined : 'milliseconds, from 1 to 2147483647';

const checks: Checks<SqliteOptions> = {
  path: (value) => (typeof value === 'string' && value.trim() !== '' ? undefined : 'the name of a file'),
  database: (value) => (isDatabase(value) ? undefined : 'a database of better-sqlite3'),
  lease: isTime,
  pollInterval: isTime,
  retention: (value) => (typeof value === 'number' && value >= 0 ? undefined : 'milliseconds from 0, or Infinity'),
};

function checked(options: SqliteOptions): SqliteOptions {
  checkOptions('sqlite()', options, checks);
  const { path, database } = options;
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
    typeof Reflect.get(value, 'inTransaction') === 'boolean'
  );
}
