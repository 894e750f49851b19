// One transaction of a worker: it renews leases, frees the tasks of dead workers and takes tasks. It renews first, and for all
// workers of this process, so that they do not take each other's running tasks after the event loop was blocked or the clock set.

import { wallClockTime } from '../../clock.js';
import type { Candidates } from './candidates.js';
import type { Write } from './commits.js';
import { isBusy } from './database.js';
import { Grace, type Lease } from './lease.js';
import type { GivenUpTask, LeaseTable } from './leases.js';
import type { TakenTask, TaskTable } from './table.js';

export interface TurnResult {
  /** Whether the leases of this process were renewed. */
  readonly isRenewed: boolean;
  readonly givenUp: readonly GivenUpTask[];
  readonly taken: readonly TakenTask[];
  /** Whether there may be more to take. */
  readonly isMoreWaiting: boolean;
  /** When the next delayed task is due. */
  readonly nextDue: number;
}

export interface TurnOwner {
  readonly id: string;
  readonly candidates: Candidates;
  /** How many tasks it can take. */
  readonly free: number;
  /** How many tasks it runs. */
  readonly running: number;
  readonly isRenewalDue: boolean;
  readonly isStopped: boolean;
  /** Renews the leases of all workers of this process. */
  renewAll(now: number): void;
  turned(result: TurnResult): void;
  turnFailed(error: unknown): void;
}

/** At most this many tasks are taken in one transaction. */
const batch = 100;

export class Turn implements Write {
  readonly isDurable = false;
  readonly #owner: TurnOwner;
  readonly #tasks: TaskTable;
  readonly #leases: LeaseTable;
  readonly #lease: Lease;
  readonly #grace = new Grace();
  #result: TurnResult | undefined = undefined;

  constructor(owner: TurnOwner, tasks: TaskTable, leases: LeaseTable, lease: Lease) {
    this.#owner = owner;
    this.#tasks = tasks;
    this.#leases = leases;
    this.#lease = lease;
  }

  /** Whether a lease is in its grace. Then somebody has to look again when that is over. */
  get isAnySilent(): boolean {
    return this.#grace.isAny;
  }

  apply(): void {
    const now = wallClockTime();
    const isRenewed = this.#renew(now);
    this.#tasks.promote(now);
    const givenUp = this.#release(now);
    const taken = this.#take(now);
    this.#result = { isRenewed, givenUp, taken, isMoreWaiting: taken.length === batch, nextDue: this.#tasks.nextDue() };
  }

  committed(): void {
    if (this.#result !== undefined) this.#owner.turned(this.#result);
  }

  failed(error: unknown): boolean {
    if (isBusy(error)) return !this.#owner.isStopped;
    this.#owner.turnFailed(error); // The next tick tries again.
    return false;
  }

  #renew(now: number): boolean {
    const isDue = this.#owner.isRenewalDue || this.#leases.isAnyOverdue(now, this.#lease);
    if (isDue) this.#owner.renewAll(now);
    return isDue;
  }

  #release(now: number): GivenUpTask[] {
    const overdue = this.#leases.isAnyOverdue(now, this.#lease) ? this.#leases.overdue(now, this.#lease) : [];
    return this.#grace.endedOf(overdue, now).flatMap((lease) => this.#leases.release(lease));
  }

  #take(now: number): TakenTask[] {
    const { id, candidates, free, running } = this.#owner;
    const limit = Math.min(batch, free);
    const taker = { worker: id, candidates, limit, isIdle: running === 0, now, lease: this.#lease };
    return limit > 0 ? this.#tasks.take(taker) : [];
  }
}
