// How long a worker that gives no sign of life keeps its tasks.

import { monotonicTime } from '../../clock.js';

/** The parts of a lease, in ms. */
export interface Lease {
  readonly length: number;
  /** Workers renew their leases this often. */
  readonly renewal: number;
  /** The part that the table holds: two thirds, from when the lease was taken or renewed. */
  readonly stored: number;
}

export function leaseOf(length: number): Lease {
  return { length, renewal: length / 3, stored: Math.ceil((2 * length) / 3) };
}

/** A lease that a worker has not renewed in time. */
export interface OverdueLease {
  readonly worker: string;
  /** When it ends. */
  readonly until: number;
  /** The part of this worker's leases that the table holds, in ms. */
  readonly stored: number;
}

/**
 * The last third of a lease is its grace. It starts when a worker first sees that the stored part has expired. While the database
 * is locked or the machine sleeps, nobody can renew; afterwards a living worker does so within its grace. The length of the
 * grace follows from the lease of the silent worker, which may be longer than the leases of the one that looks.
 *
 * If a lease ends further ahead than it can, the clock was set back, perhaps just after a renewal. Then the worker gets the time
 * until its next renewal in addition.
 */
function graceOf({ until, stored }: OverdueLease, now: number): number {
  return until > now ? stored : stored / 2;
}

/** The leases in their grace, and when each was first seen there. */
export class Grace {
  #seenAt = new Map<string, number>();

  get isAny(): boolean {
    return this.#seenAt.size > 0;
  }

  /** Returns those of the leases whose grace is over too. */
  endedOf(overdue: readonly OverdueLease[], now: number): OverdueLease[] {
    const before = this.#seenAt;
    this.#seenAt = new Map();
    const time = monotonicTime();
    return overdue.filter((lease) => {
      const key = `${lease.until} ${lease.worker}`;
      const seenAt = before.get(key) ?? time;
      const isOver = time >= seenAt + graceOf(lease, now);
      if (!isOver) this.#seenAt.set(key, seenAt);
      return isOver;
    });
  }
}
