// The driver of pg-boss: tasks are jobs of one queue. What is asked of them is in operations.ts, what its workers do in worker.ts.

import { engineUnavailable, unsupported } from '../../engine/calls.js';
import type { EngineDriver, Page, ScheduleStore, Selection } from '../../engine/driver.js';
import type { EngineStats, TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { Progress } from '../../engine/progress.js';
import { type Boss, TaskQueue } from './boss.js';
import { transactionDb } from './connections.js';
import { Inserts } from './inserts.js';
import { jobOf } from './new-job.js';
import { Operations } from './operations.js';
import { PgBossSchedules } from './schedules.js';
import { JobTable } from './table.js';
import { UnknownTasks } from './unknown.js';
import { PgBossWorker } from './worker.js';

export class PgBossDriver implements EngineDriver {
  readonly name = 'pg-boss';
  readonly schedules: ScheduleStore;
  readonly #boss: Boss;
  readonly #queue: TaskQueue;
  readonly #table: JobTable;
  readonly #inserts: Inserts;
  readonly #operations: Operations;
  readonly #runners = new Set<MessageRunner>();
  readonly #unknown: UnknownTasks;

  /** `unknownAfter`: for so many ms a task is left to workers of other processes before it is reported as unknown. */
  constructor(boss: Boss, { unknownAfter = 5000 } = {}) {
    this.#boss = boss;
    this.#queue = new TaskQueue(boss);
    this.#table = new JobTable(boss);
    this.#inserts = new Inserts(boss, this.#table);
    this.#operations = new Operations(this.#table, this.#inserts);
    this.schedules = new PgBossSchedules(boss, this.#queue, this.#table, this.#inserts);
    this.#unknown = new UnknownTasks(this.#table, this.#runners, unknownAfter);
    listenForErrors(boss);
  }

  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const job = jobOf(message);
    return this.#queue.use(() => this.#inserts.insert(job, expired));
  }

  async insertMany(messages: readonly TaskMessage[], expired: AbortSignal): Promise<string[]> {
    const jobs = messages.map(jobOf);
    return this.#queue.use(() => {
      expired.throwIfAborted();
      return this.#inserts.insertMany(jobs, expired);
    });
  }

  within(transaction: object): Pick<Required<EngineDriver>, 'insert' | 'insertMany'> {
    const db = transactionDb(transaction, this.#boss);
    return {
      insert: async (message, expired) => {
        const job = jobOf(message);
        this.#checkMade();
        return this.#inserts.insert(job, expired, db);
      },
      insertMany: async (messages, expired) => {
        const jobs = messages.map(jobOf);
        this.#checkMade();
        return this.#inserts.insertMany(jobs, expired, db);
      },
    };
  }

  async prepare(): Promise<void> {
    await this.#operate(() => this.#table.query(() => 'SELECT 1', []));
  }

  async work(runner: MessageRunner): Promise<PgBossWorker> {
    if (runner.concurrency === Number.POSITIVE_INFINITY) {
      throw unsupported('pg-boss', 'concurrency', 'it must be finite');
    }
    await this.#queue.use(async () => {});
    this.#runners.add(runner);
    this.#unknown.start();
    const store = { boss: this.#boss, queue: this.#queue, table: this.#table, inserts: this.#inserts };
    return new PgBossWorker(store, runner, this.#runners, () => this.#closed(runner));
  }

  find(ids: readonly string[], { result }: { readonly result: boolean }): Promise<TaskRecord[]> {
    return this.#operate((operations) => operations.find(ids, result));
  }

  list(page: Page): Promise<TaskRecord[]> {
    return this.#operate((operations) => operations.list(page));
  }

  stats(): Promise<EngineStats> {
    return this.#operate((operations) => operations.stats());
  }

  cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    return this.#operate((operations) => operations.cancel(id));
  }

  findCancelled(ids: readonly string[]): Promise<string[]> {
    return this.#operate((operations) => operations.marked(ids));
  }

  async *retry(selection: Selection): AsyncGenerator<number> {
    await this.#queue.use(async () => {});
    yield* this.#operations.retry(selection);
  }

  promote(id: string): Promise<boolean> {
    return this.#operate((operations) => operations.promote(id));
  }

  async *remove(selection: Selection): AsyncGenerator<number> {
    await this.#queue.use(async () => {});
    yield* this.#operations.remove(selection);
  }

  setProgress(progress: readonly Progress[]): Promise<void> {
    return this.#operate((operations) => operations.setProgress(progress));
  }

  /** The instance is the user's. */
  close(): void {}

  #operate<T>(call: (operations: Operations) => Promise<T>): Promise<T> {
    return this.#queue.use(() => call(this.#operations));
  }

  /** It would be made on a connection of its own, for which a transaction may wait that holds the only one of a pool. */
  #checkMade(): void {
    if (this.#queue.isMade) return;
    const reason = new Error('its queue was not there yet: await engine.ready() before the transaction');
    throw engineUnavailable('pg-boss', 'the task could not be stored', reason);
  }

  async #closed(runner: MessageRunner): Promise<void> {
    this.#runners.delete(runner);
    this.#unknown.restart();
    if (this.#runners.size === 0) await this.#unknown.stop();
  }
}

const heard = new WeakSet<Boss>();

/**
 * pg-boss emits an 'error' for each connection that breaks and, while PostgreSQL is away, at each poll: that ends a process
 * that does not listen. It goes on until the user has stopped it, so the listener stays when the engine is closed.
 */
function listenForErrors(boss: Boss): void {
  if (heard.has(boss)) return;
  heard.add(boss);
  boss.on('error', () => {});
}
