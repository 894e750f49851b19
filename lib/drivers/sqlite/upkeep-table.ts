// The statements of the upkeep.

import type { TaskInfo } from '../../task/types.js';
import { prepare, type SqliteDatabase } from './database.js';

export interface QueuedTask extends TaskInfo {
  readonly seq: number;
  readonly runAt: number;
  /** When it was reported as unknown. */
  readonly toldAt: number | null;
}

/** Where a walk through the tasks of a name continues. */
export interface Position {
  readonly priority: number;
  readonly seq: number;
}

/** At most this many rows per statement. */
const batch = 1000;

/** Corrections of the clock up to this many ms do not count as setting it back. */
const jitter = 1000;

export class UpkeepTable {
  readonly #isFinished;
  readonly #remove;
  readonly #latest;
  readonly #repairDelayed;
  readonly #repairFinished;
  readonly #nextName;
  readonly #nextPriority;
  readonly #queued;
  readonly #tell;

  constructor(database: SqliteDatabase) {
    this.#isFinished = prepare(database, 'SELECT 1 FROM background_tasks WHERE finished_at <= ? LIMIT 1');
    this.#remove = prepare(
      database,
      `DELETE FROM background_tasks WHERE seq IN
       (SELECT seq FROM background_tasks WHERE finished_at <= ? ORDER BY finished_at LIMIT ?)`,
    );
    this.#latest = prepare<{ finished: number | null; delayed: number | null }>(
      database,
      `SELECT (SELECT max(finished_at) FROM background_tasks WHERE finished_at IS NOT NULL) AS finished,
       (SELECT max(delayed_at) FROM background_tasks WHERE state = 'delayed') AS delayed`,
    );
    this.#repairDelayed = prepare(
      database,
      `UPDATE background_tasks SET run_at = $now + run_at - delayed_at, delayed_at = $now WHERE seq IN
       (SELECT seq FROM background_tasks WHERE state = 'delayed' AND delayed_at > $now LIMIT ${batch})`,
    );
    this.#repairFinished = prepare(
      database,
      `UPDATE background_tasks SET finished_at = $now WHERE seq IN
       (SELECT seq FROM background_tasks WHERE finished_at > $now LIMIT ${batch})`,
    );
    this.#nextName = prepare<{ name: string | null }>(
      database,
      "SELECT min(name) AS name FROM background_tasks WHERE state = 'queued' AND name > ?",
    );
    this.#nextPriority = prepare<{ priority: number | null }>(
      database,
      "SELECT max(priority) AS priority FROM background_tasks WHERE state = 'queued' AND name = ? AND priority < ?",
    );
    this.#queued = prepare<QueuedTask>(
      database,
      `SELECT seq, id, name, attempts AS attempt, run_at AS runAt, told_at AS toldAt FROM background_tasks
       WHERE state = 'queued' AND name = ? AND priority = ? AND seq > ? ORDER BY seq LIMIT ?`,
    );
    this.#tell = prepare(
      database,
      `UPDATE background_tasks SET told_at = $now WHERE seq = $seq AND state = 'queued'
       AND (told_at IS NULL OR told_at < $since OR told_at > $now + ${jitter})`,
    );
  }

  isAnyFinished(by: number): boolean {
    return this.#isFinished.get(by) !== undefined;
  }

  /** Removes at most `limit` tasks that were over by then, and returns how many. */
  removeFinished(by: number, limit: number): number {
    return this.#remove.run(by, limit).changes;
  }

  /** Whether a stored time is in the future, which means that the clock was set back. */
  isAnyAhead(now: number): boolean {
    const { finished, delayed } = this.#latest.get() ?? {};
    return Math.max(finished ?? 0, delayed ?? 0) > now + jitter;
  }

  /** Replaces times in the future by now: delays start again, and so does the retention. */
  repairClock(now: number): void {
    this.#repairDelayed.run({ now });
    this.#repairFinished.run({ now });
  }

  nextName(after: string): string | undefined {
    return this.#nextName.get(after)?.name ?? undefined;
  }

  /** The ready tasks of a name and priority, behind a position. */
  queued(name: string, { priority, seq }: Position, limit: number): QueuedTask[] {
    return this.#queued.all(name, priority, seq, limit);
  }

  nextPriority(name: string, below: number): number | undefined {
    return this.#nextPriority.get(name, below)?.priority ?? undefined;
  }

  /** Stores the time of a report. Returns false if another process has reported the task since then. */
  tell(seq: number, since: number, now: number): boolean {
    return this.#tell.run({ seq, since, now }).changes === 1;
  }
}
