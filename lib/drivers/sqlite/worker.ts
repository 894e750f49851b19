// A worker of the SQLite engine: takes tasks when there are some, keeps their leases, writes down how they ended.

import { randomUUID } from 'node:crypto';
import { clearTimeout, monotonicTime, setTimeout, wallClockTime } from '../../clock.js';
import { givenUpError } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import type { AttemptOutcome, MessageRunner } from '../../engine/message-runner.js';
import { serializeError, serializeResult } from '../../engine/serialize.js';
import { type Backoff, retryDelay } from '../../task/retry.js';
import type { GroupCommit } from './commits.js';
import { isBusy } from './database.js';
import type { Lease } from './lease.js';
import type { LeaseTable } from './leases.js';
import type { TakenTask, TaskTable } from './table.js';
import { Turn, type TurnOwner, type TurnResult } from './turn.js';

/** The statements that workers use. */
export interface SqliteTables {
  readonly tasks: TaskTable;
  readonly leases: LeaseTable;
}

export interface SqliteWorkerSettings {
  readonly lease: Lease;
  readonly pollInterval: number;
  /** Renews the leases of all workers of this process. */
  readonly renewLeases: (now: number) => void;
  /** Called when a task was given back, which another worker of this process may take. */
  readonly onGivenBack: () => void;
  readonly onClosed: (worker: SqliteWorker) => void;
}

/** How long close() tries to write down how tasks ended, in ms. */
const closeTimeout = 4500;

export class SqliteWorker implements DriverWorker, TurnOwner {
  readonly id = randomUUID();
  readonly names: readonly string[];
  readonly runner: MessageRunner;
  readonly #table: TaskTable;
  readonly #leases: LeaseTable;
  readonly #commits: GroupCommit;
  readonly #settings: SqliteWorkerSettings;
  readonly #turn: Turn;
  /** Tasks whose end is not written down yet. */
  readonly #open = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #renewedAt = 0;
  #isStopped = false;
  #isClosed = false;
  #givesUpAt = Number.POSITIVE_INFINITY;

  constructor(tables: SqliteTables, commits: GroupCommit, runner: MessageRunner, settings: SqliteWorkerSettings) {
    this.names = runner.names;
    this.#table = tables.tasks;
    this.#leases = tables.leases;
    this.#commits = commits;
    this.runner = runner;
    this.#settings = settings;
    this.#turn = new Turn(this, this.#table, this.#leases, settings.lease);
    this.#setTimer(0);
  }

  get free(): number {
    return this.#isStopped ? 0 : this.runner.free;
  }

  get isRenewalDue(): boolean {
    return this.#renewsIn() <= 0;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** To be called when there may be something to take. */
  takeSoon(): void {
    if (this.free > 0) this.#commits.addLast(this.#turn);
  }

  renewAll(now: number): void {
    this.#settings.renewLeases(now);
  }

  /** In a transaction of any worker of this process. */
  renewLeases(now: number): void {
    this.#leases.renew(this.id, now, this.#settings.lease);
  }

  stop(): void {
    this.#isStopped = true;
  }

  async close(): Promise<void> {
    this.#givesUpAt = monotonicTime() + closeTimeout;
    while (this.#open.size > 0) await Promise.all(this.#open);
    this.#isClosed = true;
    clearTimeout(this.#timer);
    this.#settings.onClosed(this);
  }

  /** Looks for what other processes have enqueued or left behind, and after the leases. */
  readonly #tick = (): void => {
    const { lease, pollInterval } = this.#settings;
    this.#setTimer(Math.min(pollInterval, lease.renewal));
    const now = wallClockTime();
    try {
      if (this.isRenewalDue || this.#leases.isAnyOverdue(now, lease) || this.#isWorkWaiting(now)) {
        this.#commits.addLast(this.#turn);
      } else {
        this.#setTimerTo(this.#table.nextDue());
      }
    } catch (error) {
      if (!isBusy(error)) this.runner.storeFailed(error);
      // The next tick looks again.
    }
  };

  #isWorkWaiting(now: number): boolean {
    return this.#table.isWorkWaiting(this.free > 0 ? this.names : [], now);
  }

  #setTimer(delay: number): void {
    clearTimeout(this.#timer);
    if (!this.#isClosed) this.#timer = setTimeout(this.#tick, delay);
  }

  #setTimerTo(nextDue: number): void {
    const due = this.free > 0 ? nextDue - wallClockTime() : Number.POSITIVE_INFINITY;
    const releasesIn = this.#turn.isAnySilent ? this.#settings.lease.renewal : Number.POSITIVE_INFINITY;
    this.#setTimer(Math.max(1, Math.min(this.#settings.pollInterval, this.#renewsIn(), releasesIn, due)));
  }

  #renewsIn(): number {
    if (this.#open.size === 0) return Number.POSITIVE_INFINITY;
    return this.#renewedAt + this.#settings.lease.renewal - monotonicTime();
  }

  /** After a turn was committed. */
  turned({ isRenewed, givenUp, taken, isMoreWaiting, nextDue }: TurnResult): void {
    if (isRenewed || this.#open.size === 0) this.#renewedAt = monotonicTime();
    for (const info of givenUp) this.runner.report(info, givenUpError(info.name));
    for (const task of taken) this.#start(task);
    if (isMoreWaiting) this.takeSoon();
    this.#setTimerTo(nextDue);
  }

  turnFailed(error: unknown): void {
    this.runner.storeFailed(error);
  }

  #start(task: TakenTask): void {
    const run = this.#run(task);
    this.#open.add(run);
    void run.then(() => this.#open.delete(run));
  }

  async #run(task: TakenTask): Promise<void> {
    const outcome = await this.#attempt(task);
    const retryIn = outcome.state === 'failed' ? retryOf(task) : undefined;
    const end = this.#end(this.#endOf(task, outcome, retryIn));
    this.takeSoon();
    if (!(await end)) return;
    if (outcome.state === 'dropped' || outcome.state === 'unused') this.#settings.onGivenBack();
    if (outcome.state !== 'failed' || retryIn !== undefined) return;
    this.runner.report({ id: task.id, name: task.name, attempt: task.attempts }, outcome.error);
  }

  async #attempt({ id, name, args, timeout, attempts }: TakenTask): Promise<AttemptOutcome> {
    try {
      const message = { id, name, args: JSON.parse(args), timeout: timeout ?? undefined, attempt: attempts };
      return await this.runner.run(message);
    } catch (error) {
      return { state: 'failed', error }; // Somebody else has changed the row.
    }
  }

  /** Writes down how the attempt ended. Resolves with false where the lease was lost meanwhile: then it is not ours to end. */
  #end(write: () => boolean): Promise<boolean> {
    let isOurs = false;
    return new Promise((resolve) => {
      this.#commits.add({
        isDurable: false,
        apply: () => {
          isOurs = write();
        },
        committed: () => resolve(isOurs),
        failed: () => {
          if (monotonicTime() < this.#givesUpAt) return true;
          resolve(false);
          return false;
        },
      });
    });
  }

  #endOf(task: TakenTask, outcome: AttemptOutcome, retryIn: number | undefined): () => boolean {
    switch (outcome.state) {
      case 'succeeded': {
        const result = serializeResult(outcome.result);
        return () => this.#table.succeed(this.id, task, result);
      }
      case 'failed': {
        if (retryIn !== undefined) return () => this.#table.retry(this.id, task, retryIn);
        const error = JSON.stringify(serializeError(outcome.error));
        return () => this.#table.fail(this.id, task, error);
      }
      case 'dropped':
        return () => this.#table.giveBack(this.id, task);
      case 'unused':
        return () => this.#table.putBack(this.id, task);
    }
  }
}

/** In how many ms a task whose attempt has failed is to be tried again; undefined if it is not. */
function retryOf({ retries, failures }: TakenTask): number | undefined {
  if (retries === null) return undefined;
  const backoff: Backoff = JSON.parse(retries);
  return failures < backoff.limit ? retryDelay(failures + 1, backoff) : undefined;
}
