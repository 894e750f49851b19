// The statements that store, take and end tasks. Who calls them, and in which transaction, is decided elsewhere.

import { wallClockTime } from '../../clock.js';
import { isSuspect } from '../../engine/deaths.js';
import type { TaskMessage } from '../../engine/message.js';
import type { Candidates } from './candidates.js';
import { prepare, type SqliteDatabase } from './database.js';
import type { Lease } from './lease.js';
import { holdsKey } from './schema.js';

/** A task that a worker has taken. */
export interface TakenTask {
  readonly seq: number;
  readonly id: string;
  readonly name: string;
  /** JSON. */
  readonly args: string;
  readonly timeout: number | null;
  /** JSON. */
  readonly retries: string | null;
  /** JSON. */
  readonly headers: string | null;
  readonly attempts: number;
  readonly failures: number;
  readonly lost: number;
}

/** The worker that takes tasks, and what it can take. */
export interface Taker {
  readonly worker: string;
  readonly candidates: Candidates;
  readonly limit: number;
  /** Whether it runs no task. */
  readonly isIdle: boolean;
  readonly now: number;
  readonly lease: Lease;
}

/**
 * Returns which attempt of a task this is, from 1. The columns count:
 *
 * | column | counts | one more | back |
 * |---|---|---|---|
 * | `attempts` | attempts, whatever became of them | when the task is taken | by 1 where it was not begun |
 * | `failures` | failed attempts, which `retries` limits | when a failure is stored | |
 * | `lost` | deaths of workers that had taken the task | when a lease is over | to 0 by a failure, which a worker lived to tell |
 * | `times_alone` | attempts that began alone, and whose worker has died since | when one begins | as `lost`, and by 1 when it is given back |
 */
export function attemptOf({ attempts }: { readonly attempts: number }): number {
  return attempts;
}

/** The values that {@link TaskTable.insert} stores. */
export interface NewRow {
  readonly id: string;
  readonly key: string | null;
  readonly isAgain: boolean;
  readonly columns: Readonly<Record<string, string | number | null>>;
}

/** At most this many rows per statement. */
const batch = 1000;

export function rowOf(message: TaskMessage): NewRow {
  const { id, name, json, timeout = null, retries, headers, delay = 0, priority = 0, key, whileRunning } = message;
  const now = wallClockTime();
  const columns = {
    id,
    name,
    args: json,
    timeout,
    retries: retries === undefined ? null : JSON.stringify(retries),
    headers: headers === undefined ? null : JSON.stringify(headers),
    priority,
    key: key === undefined ? null : keyOf(key),
    state: delay > 0 ? 'delayed' : 'queued',
    run_at: now + Math.ceil(delay),
    delayed_at: delay > 0 ? now : null,
    enqueued_at: now,
  };
  return { id, key: columns.key, isAgain: whileRunning === 'again', columns };
}

/** JSON escapes half a surrogate pair, which UTF-8 does not have, so that different keys stay different. */
function keyOf(key: string): string {
  return JSON.stringify(key);
}

export class TaskTable {
  readonly #insert;
  readonly #findKey;
  readonly #renew;
  readonly #insertBehind;
  readonly #promote;
  readonly #take;
  readonly #succeed;
  readonly #fail;
  readonly #retry;
  readonly #beginAlone;
  readonly #giveBack;
  readonly #putBack;
  readonly #cancel;
  readonly #nextDue;

  constructor(database: SqliteDatabase) {
    // The worker and the number of attempts identify the lease, since taking the task again adds an attempt.
    const own = `worker = NULL, lease_until = NULL, lease = NULL
      WHERE seq = ? AND worker = ? AND attempts = ? AND state = 'running'`;
    const insert = `INSERT INTO background_tasks
      (id, name, args, timeout, retries, headers, priority, key, state, run_at, delayed_at, enqueued_at)
      VALUES ($id, $name, $args, $timeout, $retries, $headers, $priority, $key,`;
    this.#insert = prepare(
      database,
      `${insert} $state, $run_at, $delayed_at, $enqueued_at)
       ON CONFLICT (key) WHERE ${holdsKey} DO NOTHING ON CONFLICT (id) DO NOTHING`,
    );
    this.#findKey = prepare<{ id: string; state: string }>(
      database,
      `SELECT id, state FROM background_tasks WHERE key = ? AND ${holdsKey}`,
    );
    this.#renew = prepare<{ id: string }>(
      database,
      `UPDATE background_tasks SET name = $name, args = $args, timeout = $timeout, retries = $retries,
       headers = $headers, priority = $priority, run_at = $run_at WHERE key = $key AND state = 'behind' RETURNING id`,
    );
    this.#insertBehind = prepare(database, `${insert} 'behind', $run_at, NULL, $enqueued_at)`);
    this.#promote = prepare(
      database,
      `UPDATE background_tasks SET state = 'queued', delayed_at = NULL WHERE seq IN
       (SELECT seq FROM background_tasks WHERE state = 'delayed' AND run_at <= ? ORDER BY run_at LIMIT ${batch})`,
    );
    this.#take = prepare<TakenTask>(
      database,
      `UPDATE background_tasks SET state = 'running', attempts = attempts + 1, worker = ?, lease_until = ?, lease = ?,
       started_at = ? WHERE seq = ? AND state = 'queued'
       RETURNING seq, id, name, args, timeout, retries, headers, attempts, failures, lost`,
    );
    this.#succeed = prepare(
      database,
      `UPDATE background_tasks SET state = 'succeeded', result = ?, error = NULL, finished_at = ?, ${own}`,
    );
    this.#fail = prepare<{ state: string }>(
      database,
      `UPDATE background_tasks SET state = iif(is_marked, 'cancelled', 'failed'), failures = failures + 1, error = ?,
       finished_at = ?, ${own} RETURNING state`,
    );
    this.#retry = prepare(
      database,
      `UPDATE background_tasks SET ${unlessMarked('delayed')}, failures = failures + 1, lost = 0, times_alone = 0, error = ?,
       run_at = ?, delayed_at = ?, ${own}`,
    );
    this.#beginAlone = prepare(
      database,
      `UPDATE background_tasks SET times_alone = times_alone + 1
       WHERE seq = ? AND worker = ? AND attempts = ? AND state = 'running'`,
    );
    this.#giveBack = prepare(
      database,
      `UPDATE background_tasks SET ${unlessMarked('queued')}, times_alone = times_alone - ?, ${own}`,
    );
    this.#putBack = prepare(
      database,
      `UPDATE background_tasks SET ${unlessMarked('queued')}, attempts = attempts - 1,
       started_at = CASE attempts WHEN 1 THEN NULL ELSE started_at END, ${own}`,
    );
    this.#cancel = prepare(database, `UPDATE background_tasks SET state = 'cancelled', finished_at = ?, ${own}`);
    this.#nextDue = prepare<{ run_at: number | null }>(
      database,
      "SELECT min(run_at) AS run_at FROM background_tasks WHERE state = 'delayed'",
    );
  }

  /** Returns the id of the task, or of the live one that has its key. A task that is stored already is not stored again. */
  insert({ id, key, isAgain, columns }: NewRow): string {
    if (this.#insert.run(columns).changes === 1) return id;
    const live = key === null ? undefined : this.#findKey.get(key);
    if (live === undefined || live.id === id || !isAgain) return live?.id ?? id;
    const behind = this.#renew.get(columns);
    if (behind !== undefined) return behind.id;
    if (live.state !== 'running') return live.id;
    const { delayed_at: _delayedAt, state: _state, ...rest } = columns;
    this.#insertBehind.run(rest);
    return id;
  }

  /** Puts delayed tasks that are due into the queue. */
  promote(now: number): void {
    this.#promote.run(now);
  }

  /** Takes the first of the candidates. A suspect is taken alone; until then, no task behind it is taken. */
  take({ worker, candidates, limit, isIdle, now, lease: { stored } }: Taker): TakenTask[] {
    const taken: TakenTask[] = [];
    for (const { seq, lost } of candidates.inOrder(limit)) {
      if (isSuspect(lost) && (!isIdle || taken.length > 0)) break;
      taken.push(...this.#take.all(worker, now + stored, stored, now, seq));
      if (isSuspect(lost) || taken.length === limit) break;
    }
    return taken;
  }

  // Each of these returns false if the lease was lost. Then another worker has the task, and records its end.

  beginAlone(worker: string, { seq, attempts }: TakenTask): boolean {
    return this.#beginAlone.run(seq, worker, attempts).changes === 1;
  }

  succeed(worker: string, { seq, attempts }: TakenTask, result: string | undefined): boolean {
    return this.#succeed.run(result ?? null, wallClockTime(), seq, worker, attempts).changes === 1;
  }

  /** False also for one that is marked: it ends as cancelled. */
  fail(worker: string, { seq, attempts }: TakenTask, error: string): boolean {
    return this.#fail.get(error, wallClockTime(), seq, worker, attempts)?.state === 'failed';
  }

  retry(worker: string, { seq, attempts }: TakenTask, error: string, delay: number): boolean {
    const now = wallClockTime();
    return this.#retry.run(now, error, now + Math.ceil(delay), now, seq, worker, attempts).changes === 1;
  }

  cancel(worker: string, { seq, attempts }: TakenTask): boolean {
    return this.#cancel.run(wallClockTime(), seq, worker, attempts).changes === 1;
  }

  /** Takes back that the task began alone, since its worker is alive. */
  giveBack(worker: string, { seq, attempts }: TakenTask, hasBegunAlone: boolean): boolean {
    return this.#giveBack.run(wallClockTime(), Number(hasBegunAlone), seq, worker, attempts).changes === 1;
  }

  /** As if it had not been taken. */
  putBack(worker: string, { seq, attempts }: TakenTask): boolean {
    return this.#putBack.run(wallClockTime(), seq, worker, attempts).changes === 1;
  }

  /** When the next delayed task is due. */
  nextDue(): number {
    return this.#nextDue.get()?.run_at ?? Number.POSITIVE_INFINITY;
  }
}

/** For a task that is put back. One that is marked ends as cancelled, at the time that is the first value. */
export function unlessMarked(state: 'queued' | 'delayed'): string {
  return `finished_at = iif(is_marked, ?, NULL), state = iif(is_marked, 'cancelled', '${state}')`;
}
