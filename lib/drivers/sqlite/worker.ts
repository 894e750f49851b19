// A worker of the SQLite engine: takes tasks, keeps their leases and records how they ended.

import { randomUUID } from 'node:crypto';
import { clearTimeout, monotonicTime, setTimeout, wallClockTime } from '../../clock.js';
import { isSuspect } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import { parseHeaders } from '../../engine/headers.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { AttemptOutcome } from '../../engine/run.js';
import { serializeError, serializeResult } from '../../engine/serialize.js';
import { Candidates } from './candidates.js';
import type { GroupCommit } from './commits.js';
import { isBusy } from './database.js';
import type { Lease } from './lease.js';
import type { LeaseTable } from './leases.js';
import type { ReadyTable } from './ready-table.js';
import { attemptOf, type TakenTask, type TaskTable } from './table.js';
import { Turn, type TurnOwner, type TurnResult } from './turn.js';

/** The statements that workers use. */
export interface SqliteTables {
  readonly tasks: TaskTable;
  readonly ready: ReadyTable;
  readonly leases: LeaseTable;
}

export interface SqliteWorkerSettings {
  readonly lease: Lease;
  readonly pollInterval: number;
  /** Renews the leases of all workers of this process. */
  readonly renewLeases: (now: number) => void;
  /** Called when other workers of this process may find something to take. */
  readonly onTakeable: () => void;
  readonly onClosed: (worker: SqliteWorker) => void;
}

/** How long close() tries to record how tasks ended, in ms. */
const closeTimeout = 4500;

export class SqliteWorker implements DriverWorker, TurnOwner {
  readonly id = randomUUID();
  readonly candidates: Candidates;
  readonly runner: MessageRunner;
  readonly #table: TaskTable;
  readonly #leases: LeaseTable;
  readonly #commits: GroupCommit;
  readonly #settings: SqliteWorkerSettings;
  readonly #turn: Turn;
  /** Tasks whose end is not recorded yet. */
  readonly #open = new Set<Promise<void>>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #renewedAt = 0;
  #isStopped = false;
  #isClosed = false;
  #givesUpAt = Number.POSITIVE_INFINITY;

  constructor(tables: SqliteTables, commits: GroupCommit, runner: MessageRunner, settings: SqliteWorkerSettings) {
    this.candidates = new Candidates(tables.ready, runner.names);
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

  get running(): number {
    return this.runner.running;
  }

  get isRenewalDue(): boolean {
    return this.#renewsIn() <= 0;
  }

  get isStopped(): boolean {
    return this.#isStopped;
  }

  /** Call it when there may be something to take. */
  takeSoon(): void {
    if (this.free > 0) this.#commits.addLast(this.#turn);
  }

  renewAll(now: number): void {
    this.#settings.renewLeases(now);
  }

  /** Call it within a transaction, of any worker of this process. */
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

  /** Looks for tasks of other processes, enqueued or left behind, and at the leases. */
  readonly #tick = (): void => {
    const { lease, pollInterval } = this.#settings;
    this.#setTimer(Math.min(pollInterval, lease.renewal));
    const now = wallClockTime();
    try {
      this.#commits.ensure();
      if (this.isRenewalDue || this.#leases.isAnyOverdue(now, lease) || this.#isWorkWaiting(now)) {
        this.#commits.addLast(this.#turn);
      } else {
        this.runner.polled();
        this.#setTimerTo(this.#table.nextDue());
      }
    } catch (error) {
      if (!isBusy(error)) this.runner.storeFailed(error);
      // The next tick looks again.
    }
  };

  #isWorkWaiting(now: number): boolean {
    return this.#table.nextDue() <= now || (this.free > 0 && this.candidates.isAny());
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

  /** Called after a turn has been committed. */
  turned({ isRenewed, givenUp, taken, isMoreWaiting, nextDue }: TurnResult): void {
    this.runner.polled();
    if (isRenewed || this.#open.size === 0) this.#renewedAt = monotonicTime();
    for (const { info, error } of givenUp) this.runner.report(info, error);
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
    let hasBegunAlone = false;
    const beginAlone = (): Promise<boolean> =>
      this.#write(true, () => {
        hasBegunAlone = this.#table.beginAlone(this.id, task);
        return hasBegunAlone;
      });
    const outcome = await this.#attempt(task, isSuspect(task.lost) ? beginAlone : undefined);
    const end = this.#write(
      false,
      this.#endOf(task, outcome, () => hasBegunAlone),
    );
    this.takeSoon();
    const isStored = await end;
    // Other workers may take this task now, or any task again.
    if (outcome.state === 'dropped' || outcome.state === 'unused' || isSuspect(task.lost)) this.#settings.onTakeable();
    if (!isStored || outcome.state !== 'failed' || outcome.retryIn !== undefined) return;
    const info = { id: task.id, name: task.name, attempt: attemptOf(task), json: task.args };
    this.runner.report(info, outcome.error);
  }

  async #attempt(task: TakenTask, beginAlone: (() => Promise<boolean>) | undefined): Promise<AttemptOutcome> {
    const { id, name, args, timeout, retries, headers, failures } = task;
    try {
      const message = {
        id,
        name,
        args: JSON.parse(args),
        timeout: timeout ?? undefined,
        attempt: attemptOf(task),
        retries: retries === null ? undefined : JSON.parse(retries),
        failures,
        headers: parseHeaders(headers),
      };
      return await this.runner.run(message, beginAlone);
    } catch (error) {
      return { state: 'failed', error }; // Somebody else has changed the row.
    }
  }

  /** Resolves with what `apply` returned: false if the lease was lost, so that the task is no longer ours. */
  #write(isDurable: boolean, apply: () => boolean): Promise<boolean> {
    let isOurs = false;
    return new Promise((resolve) => {
      this.#commits.add({
        isDurable,
        apply: () => {
          isOurs = apply();
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

  /** Returns what records the end of the attempt. */
  #endOf(task: TakenTask, outcome: AttemptOutcome, hasBegunAlone: () => boolean): () => boolean {
    switch (outcome.state) {
      case 'succeeded': {
        const result = serializeResult(outcome.result);
        return () => this.#table.succeed(this.id, task, result);
      }
      case 'failed': {
        const error = JSON.stringify(serializeError(outcome.error));
        const { retryIn } = outcome;
        if (retryIn !== undefined) return () => this.#table.retry(this.id, task, error, retryIn);
        return () => this.#table.fail(this.id, task, error);
      }
      case 'cancelled':
        return () => this.#table.cancel(this.id, task);
      case 'dropped':
        return () => this.#table.giveBack(this.id, task, hasBegunAlone());
      case 'unused':
        return () => this.#table.putBack(this.id, task);
    }
  }
}
