// A worker on pg-boss.
//
// All tasks are in one queue, since pg-boss orders by priority within a queue only; the name of a task is its group. A worker
// takes tasks by fetch() and not by work(), which cannot pass over the names that the worker does not know, and which
// waits for the slowest task of a batch before it takes another one.

import { clearInterval, clearTimeout, nextTurn, setInterval, setTimeout } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import { givenUpError, mostDeaths } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import type { AttemptOutcome, MessageRunner } from '../../engine/message-runner.js';
import { serializeResult } from '../../engine/serialize.js';
import { retryDelay } from '../../task/retry.js';
import type { TaskInfo } from '../../task/types.js';
import { type Boss, queue, type TaskQueue } from './boss.js';
import { type Ending, Endings } from './endings.js';
import { attemptOf, type Counters, deathsOf, type TakenJob } from './job.js';
import type { JobTable } from './table.js';

const pollInterval = 500;
const heartbeatInterval = 5000;
const batch = 100;
/** In ms. */
const foreignDelay = 5000;

export class PgBossWorker implements DriverWorker {
  readonly #boss: Boss;
  readonly #queue: TaskQueue;
  readonly #runner: MessageRunner;
  readonly #endings: Endings;
  /** Taken, and their end not written down. */
  readonly #open = new Map<TakenJob, Promise<void>>();
  /** Names that this worker has met and does not know. */
  readonly #ignored = new Set<string>();
  readonly #looping: Promise<void>;
  readonly #heartbeat: NodeJS.Timeout;
  /** No task is looked for before one of those that are open has ended. */
  #isFull = false;
  #wakeUp: (() => void) | undefined = undefined;
  #isWoken = false;
  #isStopped = false;

  constructor(boss: Boss, taskQueue: TaskQueue, table: JobTable, runner: MessageRunner) {
    this.#boss = boss;
    this.#queue = taskQueue;
    this.#runner = runner;
    this.#endings = new Endings(boss, table, (info, error) => runner.report(info, error));
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
    this.#endings.giveUp();
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
    return Math.min(batch, this.#runner.free, 2 * this.#runner.concurrency - this.#open.size);
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
    const ending = await this.#attempt(job).catch((error): Ending => ({ kind: 'failed', info: foreign(job), error }));
    if (this.#isFull) this.wake();
    await this.#endings.write(job, ending);
    this.#open.delete(job);
    this.wake();
  }

  /** Returns what to write down of it. */
  async #attempt(job: TakenJob): Promise<Ending> {
    const { name, args, timeout, unused = 0 } = job.data;
    if (typeof name !== 'string' || typeof args !== 'string') throw new TypeError('The job is no task of this library');
    const info = { id: job.id, name, attempt: attemptOf(job.retryCount, unused) };
    if (this.#isStopped) return putBack({ unused: unused + 1 });
    if (!this.#runner.knows(name)) {
      this.#ignored.add(name);
      if (!this.#runner.isKnownHere(name)) this.#runner.reportUnknown(info);
      // Without its group, a job that somebody else has made would be offered again at once.
      return putBack({ unused: unused + 1 }, job.groupId === name ? 0 : foreignDelay);
    }
    if (deathsOf(job) >= mostDeaths) {
      return { kind: 'failed', info: { ...info, attempt: info.attempt - 1 }, error: givenUpError(name) };
    }
    return endingOf(job, info, await this.#runner.run({ ...info, args: JSON.parse(args), timeout }));
  }
}

function endingOf({ data }: TakenJob, info: TaskInfo, outcome: AttemptOutcome): Ending {
  const { retries, failed = 0, dropped = 0, unused = 0 } = data;
  switch (outcome.state) {
    case 'succeeded':
      return { kind: 'completed', result: serializeResult(outcome.result) };
    case 'dropped':
      return putBack({ dropped: dropped + 1 });
    case 'unused':
      return putBack({ unused: unused + 1 });
    case 'failed': {
      if (retries === undefined || failed >= retries.limit) return { kind: 'failed', info, error: outcome.error };
      return putBack({ failed: failed + 1 }, Math.ceil(retryDelay(failed + 1, retries)));
    }
  }
}

function putBack(counters: Counters, delay = 0): Ending {
  return { kind: 'put back', counters, delay };
}

/** Of a job that somebody else has made, whose data may be anything. */
function foreign({ id, retryCount }: TakenJob): TaskInfo {
  return { id, name: 'unknown', attempt: retryCount + 1 };
}
