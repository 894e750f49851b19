// A worker on pg-boss.
//
// All tasks are in one queue, since pg-boss orders by priority within a queue only; the name of a task is its group. A worker
// takes tasks by fetch() and not by work(), which cannot pass over the names that the worker does not know, and which
// waits for the slowest task of a batch before it takes another one.

import { clearInterval, clearTimeout, monotonicTime, nextTurn, setInterval, setTimeout } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import { givenUpError, isGivenUp } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import { parseHeaders } from '../../engine/headers.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { TaskInfo } from '../../task/types.js';
import { type Boss, queue, type TaskQueue } from './boss.js';
import { asIfNotTaken, type Ending, endingOf } from './ending.js';
import { Endings } from './endings.js';
import { type Inserts, isDeadlock } from './inserts.js';
import { attemptOf, cancelledTier, mustRunAlone, type TakenJob } from './job.js';
import type { JobTable } from './table.js';

const pollInterval = 500;
const heartbeatInterval = 5000;
const batch = 100;

/** So many names are passed over. */
const mostIgnored = 10_000;

/** ms before a task is offered again that cannot be passed over by its name: at first, and after many times. */
const firstDelay = 5000;
const lastDelay = 1_000_000;

export interface PgBossStore {
  readonly boss: Boss;
  readonly queue: TaskQueue;
  readonly table: JobTable;
  readonly inserts: Inserts;
}

export class PgBossWorker implements DriverWorker {
  readonly #store: PgBossStore;
  readonly #runner: MessageRunner;
  readonly #runners: ReadonlySet<MessageRunner>;
  readonly #onClosed: () => Promise<void>;
  readonly #endings: Endings;
  /** Taken, and their end not written down. */
  readonly #open = new Map<TakenJob, Promise<void>>();
  /** Groups that this worker has met and does not know. */
  readonly #ignored = new Set<string>();
  readonly #looping: Promise<void>;
  readonly #heartbeat: NodeJS.Timeout;
  /** Till then no task is looked for while one is open. */
  #heldUpUntil = 0;
  /** No task is looked for before one of those that are open has ended. */
  #isFull = false;
  #wakeUp: (() => void) | undefined = undefined;
  #isWoken = false;
  #isStopped = false;

  /** `runners`: those of all workers of this process. */
  constructor(
    store: PgBossStore,
    runner: MessageRunner,
    runners: ReadonlySet<MessageRunner>,
    onClosed: () => Promise<void>,
  ) {
    this.#store = store;
    this.#runner = runner;
    this.#runners = runners;
    this.#onClosed = onClosed;
    this.#endings = new Endings(
      store.table,
      store.inserts,
      (info, error) => runner.report(info, error),
      () => runner.wakeAll(),
    );
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
    const closed = this.#onClosed();
    await withDeadline(async () => {
      await this.#looping;
      await Promise.all(this.#open.values());
      await closed;
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
      const begun = this.#withoutHeldUp(taken);
      for (const job of begun) void this.#settle(job, this.#attempt(job));
      await this.#holdUp(taken.slice(begun.length));
      if (begun.length < free || this.#isFull) await this.#pause();
    }
  }

  /** A suspect begins where nothing is open. Till then those behind it wait as well: else it would never come to that. */
  #withoutHeldUp(taken: readonly TakenJob[]): readonly TakenJob[] {
    const first = taken.findIndex((job) => mustRunAlone(job) && this.#runner.knows(job.data?.name ?? ''));
    if (first === -1) return taken;
    return taken.slice(0, first === 0 && this.#open.size === 0 ? 1 : first);
  }

  /**
   * Puts back a suspect and those behind it. They are looked for again when nothing is open any more, or by the next poll, since
   * another worker may have taken the suspect.
   */
  async #holdUp(jobs: readonly TakenJob[]): Promise<void> {
    if (jobs.length === 0) return;
    this.#heldUpUntil = monotonicTime() + pollInterval;
    await Promise.all(jobs.map((job) => this.#settle(job, Promise.resolve(asIfNotTaken(job)))));
  }

  /** The next tasks are fetched while the end of the last ones is written, but no more than so many of those wait. */
  get #free(): number {
    if (this.#open.size > 0 && monotonicTime() < this.#heldUpUntil) return 0;
    return Math.min(batch, this.#runner.free, 2 * this.#runner.concurrency - this.#open.size);
  }

  async #fetch(batchSize: number): Promise<TakenJob[]> {
    const { boss, queue: taskQueue } = this.#store;
    try {
      const taken = await taskQueue.use(() => boss.fetch(queue, { batchSize, ignoreGroups: this.#namesOfOthers() }));
      this.#runner.polled();
      return taken;
    } catch (error) {
      this.#runner.storeFailed(error);
      return []; // The next poll tries again.
    }
  }

  #namesOfOthers(): string[] {
    const names = [...this.#runners].flatMap((runner) => runner.names);
    return [...this.#ignored, ...names.filter((name) => !this.#runner.knows(name))];
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
    const { boss, inserts } = this.#store;
    try {
      if (this.#open.size > 0) await boss.touch(queue, [...this.#open.keys()]).catch(unlessDeadlock);
      // What stood behind the task of a worker that died in between, or was committed late.
      const released = await inserts.release();
      this.#runner.polled();
      if (released > 0) this.#runner.wakeAll();
    } catch (error) {
      this.#runner.storeFailed(error);
    }
  }

  /** Whether tasks such as this one are passed over from now on. Somebody else may have given it no group, or another one. */
  #ignores({ groupId }: TakenJob): boolean {
    if (typeof groupId !== 'string' || this.#runner.knows(groupId) || this.#ignored.size === mostIgnored) return false;
    this.#ignored.add(groupId);
    return true;
  }

  #settle(job: TakenJob, attempt: Promise<Ending>): Promise<void> {
    const settled = this.#write(job, attempt);
    this.#open.set(job, settled);
    return settled;
  }

  async #write(job: TakenJob, attempt: Promise<Ending>): Promise<void> {
    const ending = await attempt.catch((error): Ending => ({ kind: 'failed', info: foreign(job), error }));
    if (this.#isFull) this.wake();
    await this.#endings.write(job, ending);
    this.#open.delete(job);
    if (ending.kind === 'put back' || mustRunAlone(job)) this.#runner.wakeAll();
    else if (this.#isFull) this.wake();
  }

  /** Returns what to write down of it. */
  async #attempt(job: TakenJob): Promise<Ending> {
    const { id, retryCount, data } = job;
    if (typeof data?.name !== 'string' || typeof data.args !== 'string') {
      throw new TypeError('The job is no task of this library');
    }
    const { name, args, timeout, unused = 0, alone = 0 } = data;
    const info = { id, name, attempt: attemptOf(retryCount, unused), json: args };
    if (this.#isStopped || job.groupTier === cancelledTier) return asIfNotTaken(job);
    if (!this.#runner.knows(name)) {
      if (job.groupId !== name && !this.#runner.isKnownHere(name)) this.#runner.reportUnknown(info);
      return asIfNotTaken(job, this.#ignores(job) ? 0 : Math.min(firstDelay * 2 ** unused, lastDelay));
    }
    if (isGivenUp(alone)) {
      const error = givenUpError(name, alone);
      return { kind: 'failed', info: { ...info, attempt: info.attempt - 1 }, error, counters: { unused: unused + 1 } };
    }
    const beginAlone = (): Promise<boolean> => this.#endings.noteAlone(job, alone + 1);
    const { retries, headers, failed: failures = 0 } = data;
    const message = { ...info, args: JSON.parse(args), timeout, retries, failures, headers: parseHeaders(headers) };
    const outcome = await this.#runner.run(message, mustRunAlone(job) ? beginAlone : undefined);
    return endingOf(job, data, info, outcome);
  }
}

/** With an end that is being written: the next beat is early enough. */
function unlessDeadlock(error: unknown): void {
  if (!isDeadlock(error)) throw error;
}

/** Of a job that somebody else has made. */
function foreign({ id, retryCount }: TakenJob): TaskInfo {
  return { id, name: 'unknown', attempt: attemptOf(retryCount) };
}
