// The leases in the table: until when a running task belongs to its worker, and what happens to it afterwards.

import { wallClockTime } from '../../clock.js';
import { givenUpError, isGivenUp } from '../../engine/deaths.js';
import { serializeError } from '../../engine/serialize.js';
import type { ReportedTask } from '../../engine/worker-reports.js';
import type { BackgroundTasksError } from '../../errors.js';
import { prepare, type SqliteDatabase } from './database.js';
import type { OverdueLease } from './lease.js';
import { attemptOf, unlessMarked } from './table.js';

/** A task whose workers died too often. */
export interface GivenUpTask {
  readonly info: ReportedTask;
  readonly error: BackgroundTasksError;
}

/** At most this many rows per statement. */
const batch = 1000;

export class LeaseTable {
  readonly #renew;
  readonly #ends;
  readonly #isAnyAhead;
  readonly #overdue;
  readonly #lost;
  readonly #release;
  readonly #giveUp;

  constructor(database: SqliteDatabase) {
    this.#renew = prepare(
      database,
      "UPDATE background_tasks SET lease_until = ?, lease = ? WHERE state = 'running' AND worker = ?",
    );
    this.#ends = prepare<{ first: number | null; last: number | null }>(
      database,
      `SELECT (SELECT min(lease_until) FROM background_tasks WHERE state = 'running') AS first,
       (SELECT max(lease_until) FROM background_tasks WHERE state = 'running') AS last`,
    );
    // Where the length of a lease is missing, nothing is known of how far ahead it may end.
    const isAhead = 'lease_until > $now + lease';
    this.#isAnyAhead = prepare(
      database,
      `SELECT 1 FROM background_tasks WHERE state = 'running' AND ${isAhead} LIMIT 1`,
    );
    this.#overdue = prepare<OverdueLease>(
      database,
      `SELECT worker, lease_until AS until, max(coalesce(lease, $stored)) AS stored FROM background_tasks
       WHERE state = 'running' AND (lease_until <= $now OR ${isAhead}) GROUP BY lease_until, worker LIMIT ${batch}`,
    );
    this.#lost = prepare<LostRow>(
      database,
      `SELECT seq, id, name, attempts, times_alone AS timesAlone, is_marked AS isMarked FROM background_tasks
       WHERE state = 'running' AND lease_until = $until AND worker = $worker LIMIT ${batch}`,
    );
    const freed = 'lost = lost + 1, worker = NULL, lease_until = NULL, lease = NULL';
    this.#release = prepare(database, `UPDATE background_tasks SET ${unlessMarked('queued')}, ${freed} WHERE seq = ?`);
    this.#giveUp = prepare<{ args: string }>(
      database,
      `UPDATE background_tasks SET state = 'failed', error = ?, finished_at = ?, ${freed} WHERE seq = ? RETURNING args`,
    );
  }

  renew(worker: string, now: number, { stored }: { readonly stored: number }): void {
    this.#renew.run(now + stored, stored, worker);
  }

  /** `stored` is that of the leases of this process. */
  isAnyOverdue(now: number, { stored }: { readonly stored: number }): boolean {
    const { first, last } = this.#ends.get() ?? {};
    if (typeof first !== 'number' || typeof last !== 'number') return false;
    // Each lease is looked at only if one ends later than the leases of this process can.
    return first <= now || (last > now + stored && this.#isAnyAhead.get({ now }) !== undefined);
  }

  /** `stored` stands in for leases whose length is missing. */
  overdue(now: number, { stored }: { readonly stored: number }): OverdueLease[] {
    return this.#overdue.all({ now, stored });
  }

  /** Puts the tasks of a dead worker back into the queue, and returns those that it gives up instead. */
  release({ worker, until }: OverdueLease): GivenUpTask[] {
    const givenUp: GivenUpTask[] = [];
    for (const { seq, timesAlone, isMarked, ...task } of this.#lost.all({ worker, until })) {
      if (isGivenUp(timesAlone) && isMarked === 0) {
        const error = givenUpError(task.name, timesAlone);
        const row = this.#giveUp.get(JSON.stringify(serializeError(error)), wallClockTime(), seq);
        givenUp.push({ info: { id: task.id, name: task.name, attempt: attemptOf(task), json: row?.args }, error });
      } else {
        this.#release.run(wallClockTime(), seq);
      }
    }
    return givenUp;
  }
}

interface LostRow {
  readonly seq: number;
  readonly id: string;
  readonly name: string;
  readonly attempts: number;
  readonly timesAlone: number;
  /** 1 if it is to be cancelled: then it is no failure. */
  readonly isMarked: number;
}
