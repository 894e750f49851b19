// A worker on pg-boss.
//
// All tasks are in one queue, since pg-boss orders by priority within a queue only; the name of a task is its group. A worker
// takes tasks by fetch() and not by work(), which cannot pass over the names that the worker does not know, and which
// waits for the slowest task of a batch before it takes another one.

import { clearInterval, clearTimeout, nextTurn, setInterval, setTimeout, sleep } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import { givenUpError, mostDeaths } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { serializeError, serializeResult } from '../../engine/serialize.js';
import { retryDelay } from '../../task/retry.js';
import type { TaskInfo } from '../../task/types.js';
import { type Boss, type Db, queue, type StoredMessage, type TakenJob, type TaskQueue } from './boss.js';

const pollInterval = 500;
const heartbeatInterval = 5000;
const batch = 100;
/** In seconds. */
const foreignDelay = 5;

export class PgBossWorker implements DriverWorker {
  readonly #boss: Boss;
  readonly #queue: TaskQueue;
  readonly #runner: MessageRunner;
  /** Taken, and not yet settled. */
  readonly #open = new Map<TakenJob, Promise<void>>();
  /** Taken, and not yet run. */
  #busy = 0;
  /** No task is looked for before one of those that run has ended. */
  #isFull = false;
  /** By result. */
  readonly #ending = new Map<string | undefined, { jobs: TakenJob[]; written: Promise<unknown> }>();
  /** Names that this worker has met and does not know. */
  readonly #ignored = new Set<string>();
  readonly #looping: Promise<void>;
  readonly #heartbeat: NodeJS.Timeout;
  #wakeUp: (() => void) | undefined = undefined;
  #isWoken = false;
  #isStopped = false;

  constructor(boss: Boss, taskQueue: TaskQueue, runner: MessageRunner) {
    this.#boss = boss;
    this.#queue = taskQueue;
    this.#runner = runner;
    this.#heartbeat = setInterval(() => void this.#beat(), heartbeatInterval);
    this.#looping = this.#loop();
  }

  /** Looks for tasks now rather than at the next poll. */
  wake(): void {
    this.#isWoken = true;
    this.#wakeUp?.();
  }

  stop(): void {
    this.#isStopped = true;
    this.wake();
  }

  async close(): Promise<void> {
    await withDeadline(async () => {
      await this.#looping;
      await Promise.all(this.#open.values());
    }).catch(() => {}); // PostgreSQL is away: another worker takes them again.
    clearInterval(this.#heartbeat);
  }

  async #loop(): Promise<void> {
    while (!this.#isStopped) {
      this.#isWoken = false;
      const free = this.#free;
      this.#isFull = free <= 0;
      const taken = this.#isFull ? [] : await this.#fetch(free);
      for (const job of taken) this.#open.set(job, this.#handle(job));
      if (taken.length < free || this.#isFull) await this.#pause();
    }
  }

  /** The next tasks are fetched while the end of the last ones is written, but no more than so many of those wait. */
  get #free(): number {
    const { concurrency } = this.#runner;
    return Math.min(batch, this.#runner.free, concurrency - this.#busy, 2 * concurrency - this.#open.size);
  }

  async #fetch(batchSize: number): Promise<TakenJob[]> {
    try {
      return await this.#queue.use(() => this.#boss.fetch(queue, { batchSize, ignoreGroups: [...this.#ignored] }));
    } catch (error) {
      this.#runner.storeFailed(error);
      return []; // The next poll tries again.
    }
  }

  async #pause(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#wakeUp = resolve;
      timer = setTimeout(resolve, pollInterval);
      if (this.#isWoken) resolve();
    });
    clearTimeout(timer);
    await nextTurn(); // Of tasks that end together.
  }

  async #beat(): Promise<void> {
    if (this.#open.size > 0) await this.#boss.touch(queue, [...this.#open.keys()]).catch(() => {});
  }

  async #handle(job: TakenJob): Promise<void> {
    this.#busy++;
    const settle = await this.#attempt(job).catch((error) => () => this.#fail(job, foreign(job), error));
    this.#busy--;
    if (this.#isFull) this.wake();
    for (let tries = 0; tries < 60; tries++) {
      try {
        await settle();
        break;
      } catch {
        if (this.#isStopped) break;
        await sleep(1000); // PostgreSQL is away. Should that take longer, the task will run again.
      }
    }
    this.#open.delete(job);
    this.wake();
  }

  /** Runs it, and returns how to write down what came of it. */
  async #attempt(job: TakenJob): Promise<() => Promise<unknown>> {
    const { name, args, timeout, retries, failed = 0, dropped = 0, unused = 0 } = job.data;
    if (typeof name !== 'string' || typeof args !== 'string') throw new TypeError('The job is no task of this library');
    const info = { id: job.id, name, attempt: job.retryCount + 1 - unused };
    if (this.#isStopped) return this.#putBack(job, { unused: unused + 1 });
    if (!this.#runner.knows(name)) {
      this.#ignored.add(name);
      if (!this.#runner.isKnownHere(name)) this.#runner.reportUnknown(info);
      // Without its group, a job that somebody else has made would be offered again at once.
      return this.#putBack(job, { unused: unused + 1 }, job.groupId === name ? 0 : foreignDelay);
    }
    if (info.attempt - 1 - failed - dropped >= mostDeaths) {
      info.attempt--;
      return () => this.#fail(job, info, givenUpError(name));
    }
    const outcome = await this.#runner.run({ ...info, args: JSON.parse(args), timeout });
    switch (outcome.state) {
      case 'succeeded': {
        const result = serializeResult(outcome.result);
        return () => this.#complete(job, result);
      }
      case 'dropped':
        return this.#putBack(job, { dropped: dropped + 1 });
      case 'unused':
        return this.#putBack(job, { unused: unused + 1 });
      case 'failed': {
        if (retries === undefined || failed >= retries.limit) return () => this.#fail(job, info, outcome.error);
        const delay = retryDelay(failed + 1, retries);
        return this.#putBack(job, { failed: failed + 1 }, Math.ceil(delay) / 1000);
      }
    }
  }

  /** Those that end in one turn of the event loop with the same result, which is mostly none, by one statement. */
  #complete(job: TakenJob, result: string | undefined): Promise<unknown> {
    const ending = this.#ending.get(result);
    if (ending !== undefined) {
      ending.jobs.push(job);
      return ending.written;
    }
    const jobs = [job];
    const written = nextTurn().then(() => {
      this.#ending.delete(result);
      return this.#boss.complete(queue, jobs, { result });
    });
    this.#ending.set(result, { jobs, written });
    return written;
  }

  /** Returns how to give it back, to run again in so many seconds, with these counts. */
  #putBack(job: TakenJob, counts: Partial<StoredMessage>, startAfter = 0): () => Promise<void> {
    let isReleased = false;
    return () =>
      this.#together(async (db) => {
        if (!isReleased && !isSettled(await this.#boss.fail(queue, job, undefined, { db }))) return;
        isReleased = db === undefined; // Then nothing undoes it, and only the rest is to be tried again.
        await this.#boss.update(queue, { ...job.data, ...counts }, { id: job.id, startAfter, db });
      });
  }

  /** pg-boss has no final failure in one step, since its retryLimit is there for the workers that die. */
  async #fail(job: TakenJob, info: TaskInfo, error: unknown): Promise<void> {
    const output = { error: JSON.stringify(serializeError(error)), attempts: info.attempt };
    const isOurs = await this.#together(async (db) => {
      if (db === undefined) return isSettled(await this.#boss.complete(queue, [job], output));
      if (!isSettled(await this.#boss.fail(queue, job, output, { db }))) return false;
      await this.#boss.update(queue, undefined, { id: job.id, retryLimit: 0, db });
      await this.#boss.fail(queue, job.id, output, { db });
      return true;
    });
    if (isOurs) this.#runner.report(info, error);
  }

  /** In one transaction, where pg-boss's database has any: its adapters for clients other than node-postgres have none. */
  async #together<T>(write: (db: Db | undefined) => Promise<T>): Promise<T> {
    const transaction = await this.#boss.getDb().beginTransaction?.();
    if (transaction === undefined) return write(undefined);
    try {
      const written = await write(transaction.db);
      await transaction.commit();
      return written;
    } catch (error) {
      await transaction.rollback();
      throw error;
    }
  }
}

/** Of a job that somebody else has made, whose data may be anything. */
function foreign({ id, retryCount }: TakenJob): TaskInfo {
  return { id, name: 'unknown', attempt: retryCount + 1 };
}

/** False where the task is not this worker's any more. */
function isSettled({ affected }: { affected?: number }): boolean {
  return affected !== 0;
}
