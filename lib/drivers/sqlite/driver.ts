// The driver of the SQLite engine: stores and finds tasks, and creates workers.

import { monotonicTime, sleep } from '../../clock.js';
import { unsupported } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { GroupCommit } from './commits.js';
import type { Connection } from './connection.js';
import { FilesLost, isBusy } from './database.js';
import { KnownNames } from './known-names.js';
import { LeaseTable } from './leases.js';
import { ReadyTable } from './ready-table.js';
import { type NewRow, rowOf, TaskTable } from './table.js';
import { Upkeep, type UpkeepSettings } from './upkeep.js';
import { UpkeepTable } from './upkeep-table.js';
import { type SqliteTables, SqliteWorker, type SqliteWorkerSettings } from './worker.js';

/** How long a call waits for a database that is in use, in ms: less than the deadline, so that the error says why. */
const patience = 4000;

export type SqliteSettings = Pick<SqliteWorkerSettings, 'lease' | 'pollInterval'> & Pick<UpkeepSettings, 'retention'>;

export class SqliteDriver implements EngineDriver {
  readonly name = 'sqlite';
  readonly #connection: Connection;
  readonly #settings: SqliteWorkerSettings;
  readonly #tables: SqliteTables;
  readonly #commits: GroupCommit;
  readonly #upkeep: Upkeep;
  readonly #workers = new Set<SqliteWorker>();

  constructor(connection: Connection, settings: SqliteSettings) {
    const { database } = connection;
    this.#connection = connection;
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
    this.#tables = {
      tasks: new TaskTable(database),
      ready: new ReadyTable(database),
      leases: new LeaseTable(database),
    };
    this.#commits = new GroupCommit(connection);
    this.#upkeep = new Upkeep(new UpkeepTable(database), new KnownNames(database), this.#commits, {
      lease: settings.lease.length,
      pollInterval: settings.pollInterval,
      retention: settings.retention,
      runners: () => [...this.#workers].filter(({ isStopped }) => !isStopped).map(({ runner }) => runner),
    });
  }

  /** Uses the application's open transaction, if there is one. Then the end of that decides about the task. */
  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    this.#checkOpen();
    if (/[\ud800-\udfff]/u.test(message.name)) throw unsupported('sqlite', 'name', 'it has half a surrogate pair');
    const row = rowOf(message);
    const id = this.#connection.database.inTransaction ? this.#insertNow(row) : this.#insertSoon(row, expired);
    this.#takeSoon(); // In the same transaction.
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
        this.#connection.ensure();
        return this.#tables.tasks.find(id, result);
      } catch (error) {
        if (!isPassing(error) || monotonicTime() > end) throw error;
        await sleep(10);
      }
    }
  }

  async close(): Promise<void> {
    await this.#commits.idle();
    this.#connection.close();
  }

  #takeSoon(): void {
    for (const worker of this.#workers) worker.takeSoon();
  }

  #checkOpen(): void {
    if (!this.#connection.database.open) throw new Error('the database is closed');
  }

  #insertNow(row: NewRow): string {
    this.#connection.ensure();
    return this.#tables.tasks.insert(row);
  }

  #insertSoon(row: NewRow, expired: AbortSignal): Promise<string> {
    const end = monotonicTime() + patience;
    let id = '';
    return new Promise((resolve, reject) => {
      this.#commits.add({
        isDurable: true,
        apply: () => {
          // Behind very many others, its turn may come too late.
          if (!expired.aborted) id = this.#tables.tasks.insert(row);
        },
        committed: () => resolve(id),
        failed: (error) => {
          if (isPassing(error) && monotonicTime() < end) return true;
          reject(error);
          return false;
        },
      });
    });
  }
}

/** Whether the same call may succeed in a moment. */
function isPassing(error: unknown): boolean {
  return isBusy(error) || error instanceof FilesLost;
}
