// The driver of the SQLite engine: stores and finds tasks, and creates workers.

import { monotonicTime, nextTurn, sleep } from '../../clock.js';
import { unsupported } from '../../engine/calls.js';
import type { EngineDriver, Page, ScheduleStore, Selection } from '../../engine/driver.js';
import type { EngineStats, TaskFilter, TaskRecord } from '../../engine/engine.js';
import { timeOfId } from '../../engine/id.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { Progress } from '../../engine/progress.js';
import { GroupCommit } from './commits.js';
import type { Connection } from './connection.js';
import { FilesLost, isBusy } from './database.js';
import { KnownNames } from './known-names.js';
import { LeaseTable } from './leases.js';
import { OperationsTable } from './operations-table.js';
import { ReadyTable } from './ready-table.js';
import { ScheduleTable } from './schedule-table.js';
import { type NewRow, rowOf, TaskTable } from './table.js';
import { Upkeep, type UpkeepSettings } from './upkeep.js';
import { UpkeepTable } from './upkeep-table.js';
import { beginnings, type Direction, Walk } from './walk.js';
import { type SqliteTables, SqliteWorker, type SqliteWorkerSettings } from './worker.js';

/** How long a call waits for a database that is in use, in ms: less than the deadline, so that the error says why. */
const patience = 4000;

/** So many tasks are changed in one transaction. */
const batch = 1000;

export type SqliteSettings = Pick<SqliteWorkerSettings, 'lease' | 'pollInterval'> & Pick<UpkeepSettings, 'retention'>;

export class SqliteDriver implements EngineDriver {
  readonly name = 'sqlite';
  readonly instead = { within: 'enqueue in an open transaction of its "database", which it joins by itself' };
  readonly schedules: ScheduleStore;
  readonly #connection: Connection;
  readonly #settings: SqliteWorkerSettings;
  readonly #tables: SqliteTables;
  readonly #operations: OperationsTable;
  readonly #walk: Walk;
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
    this.#operations = new OperationsTable(database);
    this.#walk = new Walk(database);
    this.#commits = new GroupCommit(connection);
    this.schedules = this.#schedulesOf(new ScheduleTable(database));
    this.#upkeep = new Upkeep(new UpkeepTable(database), new KnownNames(database), this.#commits, {
      lease: settings.lease.length,
      pollInterval: settings.pollInterval,
      retention: settings.retention,
      runners: () => [...this.#workers].filter(({ isStopped }) => !isStopped).map(({ runner }) => runner),
    });
  }

  /** It has to take what is written. */
  async prepare(expired: AbortSignal): Promise<void> {
    await this.#write(() => undefined, { expired });
  }

  /** Uses the application's open transaction, if there is one. Then the end of that decides about the task. */
  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const row = checkedRow(message);
    const id = this.#write(() => this.#tables.tasks.insert(row), { expired });
    this.#takeSoon(); // In the same transaction.
    return id;
  }

  async insertMany(messages: readonly TaskMessage[], expired: AbortSignal): Promise<string[]> {
    const rows = messages.map(checkedRow);
    const ids = this.#write(() => rows.map((row) => this.#tables.tasks.insert(row)), { expired });
    this.#takeSoon();
    return ids;
  }

  work(runner: MessageRunner): SqliteWorker {
    this.#checkOpen();
    const worker = new SqliteWorker(this.#tables, this.#commits, runner, this.#settings);
    this.#workers.add(worker);
    this.#upkeep.start();
    return worker;
  }

  async find(ids: readonly string[], { result }: { readonly result: boolean }): Promise<TaskRecord[]> {
    return this.#read(() => this.#operations.find(ids, result));
  }

  async list({ limit, offset, after, ...filter }: Page, expired: AbortSignal): Promise<TaskRecord[]> {
    const from = await this.#read(() => this.#seqBefore(after));
    const records: TaskRecord[] = [];
    let skip = offset;
    // In the same turn, in which no worker of this process changes their states.
    const read = (seqs: number[]): TaskRecord[] => {
      const found = this.#operations.records(seqs.slice(skip, skip + limit - records.length));
      skip = Math.max(0, skip - seqs.length);
      return found;
    };
    for await (const found of this.#steps('newest', filter, from, limit + offset, read)) {
      expired.throwIfAborted();
      records.push(...found);
      if (records.length >= limit) break;
    }
    return records;
  }

  stats(): Promise<EngineStats> {
    return this.#read(() => this.#operations.stats());
  }

  async cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    const answer = await this.#write(() => this.#operations.cancel(id));
    this.#takeSoon(); // Another task may have waited for its key.
    return answer;
  }

  findCancelled(ids: readonly string[]): Promise<string[]> {
    return this.#read(() => this.#operations.marked(ids));
  }

  async *retry(selection: Selection): AsyncGenerator<number> {
    for await (const seqs of this.#select(selection)) yield this.#write(() => this.#operations.retry(seqs));
  }

  promote(id: string): Promise<boolean> {
    return this.#write(() => this.#operations.promote(id));
  }

  async *remove(selection: Selection): AsyncGenerator<number> {
    const state = 'id' in selection ? undefined : selection.state;
    for await (const seqs of this.#select(selection)) {
      yield this.#write(() => this.#operations.remove(seqs, state ?? null));
    }
  }

  setProgress(progress: readonly Progress[]): Promise<void> {
    return this.#write(() => this.#operations.setProgress(progress), { isDurable: false });
  }

  async close(): Promise<void> {
    await this.#commits.idle();
    this.#connection.close();
  }

  #schedulesOf(table: ScheduleTable): ScheduleStore {
    return {
      list: (due) => this.#read(() => table.list(due)),
      put: (schedule) => this.#write(() => table.put(schedule)),
      delete: (name) => this.#write(() => table.delete(name)),
      advance: async (schedule, next, message) => {
        const row = checkedRow(message);
        await this.#write(() => {
          if (table.advance(schedule, next)) this.#tables.tasks.insert(row);
        });
        this.#takeSoon();
      },
    };
  }

  #takeSoon(): void {
    for (const worker of this.#workers) worker.takeSoon();
  }

  #checkOpen(): void {
    if (!this.#connection.database.open) throw new Error('the database is closed');
  }

  #seqBefore(after: string | undefined): number {
    if (after === undefined) return beginnings.newest;
    return this.#operations.seqOf(after) ?? this.#operations.seqAfter(Number(timeOfId(after) ?? 0));
  }

  async *#select(selection: Selection): AsyncGenerator<number[]> {
    if (!('id' in selection)) {
      yield* this.#steps('oldest', selection, beginnings.oldest, batch, (seqs) => seqs);
      return;
    }
    const seq = await this.#read(() => this.#operations.seqOf(selection.id));
    if (seq !== undefined) yield [seq];
  }

  /** What `look` makes of those that fit. Other code gets its turn between two steps. */
  async *#steps<T>(
    direction: Direction,
    filter: TaskFilter,
    from: number,
    limit: number,
    look: (seqs: number[]) => T,
  ): AsyncGenerator<T> {
    for (let next: number | undefined = from; next !== undefined; ) {
      const begin: number = next;
      const step = (): { found: T; next: number | undefined } => {
        const { seqs, next } = this.#walk.step(direction, filter, begin, limit);
        return { found: look(seqs), next };
      };
      const { found, next: following } = await this.#read(step);
      yield found;
      next = following;
      await nextTurn();
    }
  }

  async #read<T>(look: () => T): Promise<T> {
    const end = monotonicTime() + patience;
    while (true) {
      this.#checkOpen();
      try {
        this.#connection.ensure();
        return look();
      } catch (error) {
        if (!isPassing(error) || monotonicTime() > end) throw error;
        await sleep(10);
      }
    }
  }

  /** Resolves with what `change` returns, once that is stored. */
  async #write<T>(change: () => T, { isDurable = true, expired }: WriteOptions = {}): Promise<T> {
    this.#checkOpen();
    if (this.#connection.database.inTransaction) {
      this.#connection.ensure();
      return change();
    }
    const end = monotonicTime() + patience;
    return new Promise((resolve, reject) => {
      let settle = (): void => reject(expired?.reason);
      this.#commits.add({
        isDurable,
        apply: () => {
          if (expired?.aborted) return; // Behind very many others, its turn may come too late.
          const value = change();
          settle = () => resolve(value);
        },
        committed: () => settle(),
        failed: (error) => {
          if (isPassing(error) && monotonicTime() < end) return true;
          reject(error);
          return false;
        },
      });
    });
  }
}

interface WriteOptions {
  /** Whether somebody is promised that it survives a power failure. */
  readonly isDurable?: boolean;
  /** Once it is aborted, nothing is written. */
  readonly expired?: AbortSignal;
}

function checkedRow(message: TaskMessage): NewRow {
  if (/[\ud800-\udfff]/u.test(message.name)) throw unsupported('sqlite', 'name', 'it has half a surrogate pair');
  return rowOf(message);
}

/** Whether it may be gone in a moment. */
function isPassing(error: unknown): boolean {
  return isBusy(error) || error instanceof FilesLost;
}
