// For how long a silent worker is thought alive, and when that time is over.

import { monotonicTime } from '../../clock.js';

/** The parts of a lease, in ms. */
export interface Lease {
  readonly length: number;
  /** Workers renew their leases this often. */
  readonly renewal: number;
  /** The part that the table holds: a lease ends so long after it was taken or renewed. */
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
  /** How long leases of this worker are in the table, in ms. */
  readonly stored: number;
}

/**
 * The last part of a lease is its grace, which is not in the table: it begins when somebody sees that the stored part is over.
 * Nobody can renew while the database is locked, or the machine sleeps; afterwards those that live do so before they are
 * thought dead. It is as long as the lease of the worker that is silent says, which may be longer than that of who looks.
 *
 * A lease that ends in the future is over as well if it ends further ahead than it can: the clock was set back, perhaps just
 * after a renewal. Then the worker has the time for another one, and the grace besides.
 */
function graceOf({ until, stored }: OverdueLease, now: number): number {
  return until > now ? stored : stored / 2;
}

/** The leases that are over, and since when each has been seen so. */
export class Grace {
  #seenAt = new Map<string, number>();

  get isAny(): boolean {
    return this.#seenAt.size > 0;
  }

  /** Those of the leases whose grace is over too. */
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
