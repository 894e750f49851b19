// What people do with the table: look into it, cancel, retry, remove.

import { wallClockTime } from '../../clock.js';
import type { EngineStats, TaskRecord, TaskState } from '../../engine/engine.js';
import type { Progress } from '../../engine/progress.js';
import { prepare, type SqliteDatabase } from './database.js';
import { columns, type RecordRow, recordOf } from './record.js';

/** Each has an index of its own, which SQLite counts without a look at the rows. */
const states = ['queued', 'delayed', 'behind', 'running', 'succeeded', 'failed', 'cancelled'] as const;

export class OperationsTable {
  readonly #find;
  readonly #findWhole;
  readonly #records;
  readonly #stats;
  readonly #state;
  readonly #latest;
  readonly #cancel;
  readonly #mark;
  readonly #marked;
  readonly #retry;
  readonly #promote;
  readonly #remove;
  readonly #progress;

  constructor(database: SqliteDatabase) {
    const among = 'IN (SELECT value FROM json_each(?))';
    this.#find = prepare<RecordRow>(database, `SELECT ${columns.small} FROM background_tasks WHERE id ${among}`);
    this.#findWhole = prepare<RecordRow>(database, `SELECT ${columns.all} FROM background_tasks WHERE id ${among}`);
    this.#records = prepare<RecordRow>(
      database,
      `SELECT ${columns.withArgs} FROM background_tasks WHERE seq ${among} ORDER BY seq DESC`,
    );
    const counts = states.map(
      (state) => `(SELECT count(*) FROM background_tasks WHERE state = '${state}') AS ${state}`,
    );
    this.#stats = prepare<StatsRow>(
      database,
      `SELECT ${counts.join(', ')},
       (SELECT count(*) FROM background_tasks WHERE state = 'delayed' AND run_at <= $now) AS overdue,
       (SELECT min(run_at) FROM background_tasks WHERE state = 'queued') AS oldestQueued,
       (SELECT min(run_at) FROM background_tasks WHERE state = 'delayed' AND run_at <= $now) AS oldestDelayed`,
    );
    this.#state = prepare<{ seq: number; state: RecordRow['state'] }>(
      database,
      'SELECT seq, state FROM background_tasks WHERE id = ?',
    );
    this.#latest = prepare<{ seq: number }>(
      database,
      'SELECT seq FROM background_tasks WHERE enqueued_at <= ? ORDER BY seq DESC LIMIT 1',
    );
    this.#cancel = prepare(database, "UPDATE background_tasks SET state = 'cancelled', finished_at = ? WHERE seq = ?");
    this.#mark = prepare(database, 'UPDATE background_tasks SET is_marked = 1 WHERE seq = ?');
    this.#marked = prepare<{ id: string }>(
      database,
      `SELECT id FROM background_tasks WHERE id ${among} AND state = 'running' AND is_marked`,
    );
    this.#retry = prepare(
      database,
      `UPDATE OR IGNORE background_tasks SET state = 'queued', run_at = ?, failures = 0, lost = 0, times_alone = 0,
       is_marked = 0, finished_at = NULL WHERE seq = ? AND state IN ('failed', 'cancelled')`,
    );
    this.#promote = prepare(
      database,
      `UPDATE background_tasks SET state = 'queued', run_at = ?, delayed_at = NULL WHERE id = ? AND state = 'delayed'`,
    );
    this.#remove = prepare(
      database,
      `DELETE FROM background_tasks WHERE seq = $seq AND state <> 'running'
       AND ($state IS NULL OR $state = iif(state IN ('delayed', 'behind'), 'queued', state))`,
    );
    this.#progress = prepare(
      database,
      "UPDATE background_tasks SET progress = ? WHERE id = ? AND attempts = ? AND state = 'running'",
    );
  }

  /** Without results, large ones are not read, and neither are arguments. */
  find(ids: readonly string[], withResults: boolean): TaskRecord[] {
    return (withResults ? this.#findWhole : this.#find).all(JSON.stringify(ids)).map(recordOf);
  }

  stats(): EngineStats {
    const now = wallClockTime();
    const row = this.#stats.get({ now });
    if (row === undefined) throw new Error('SQLite has not counted');
    const { queued, delayed, behind, running, succeeded, failed, cancelled, overdue } = row;
    const stats = { queued: queued + delayed + behind, due: queued + overdue, running, succeeded, failed, cancelled };
    const oldest = Math.min(row.oldestQueued ?? now, row.oldestDelayed ?? now);
    return stats.due === 0 ? stats : { ...stats, oldestDueAt: new Date(oldest) };
  }

  /** Those that walk.ts has found, with their arguments. */
  records(seqs: readonly number[]): TaskRecord[] {
    return this.#records.all(JSON.stringify(seqs)).map(recordOf);
  }

  seqOf(id: string): number | undefined {
    return this.#state.get(id)?.seq;
  }

  /** Behind the tasks that were enqueued by then. */
  seqAfter(time: number): number {
    return (this.#latest.get(time)?.seq ?? 0) + 1;
  }

  cancel(id: string): 'cancelled' | 'signalled' | 'over' | undefined {
    const found = this.#state.get(id);
    switch (found?.state) {
      case undefined:
        return undefined;
      case 'running':
        this.#mark.run(found?.seq);
        return 'signalled';
      case 'queued':
      case 'delayed':
      case 'behind':
        this.#cancel.run(wallClockTime(), found?.seq);
        return 'cancelled';
      default:
        return 'over';
    }
  }

  marked(ids: readonly string[]): string[] {
    return this.#marked.all(JSON.stringify(ids)).map(({ id }) => id);
  }

  /** Returns how many will run again. One whose key is live is left alone. */
  retry(seqs: readonly number[]): number {
    const now = wallClockTime();
    return seqs.reduce((count, seq) => count + this.#retry.run(now, seq).changes, 0);
  }

  promote(id: string): boolean {
    return this.#promote.run(wallClockTime(), id).changes === 1;
  }

  /** Of those that are still in this state. Returns how many were removed. */
  remove(seqs: readonly number[], state: TaskState | null): number {
    return seqs.reduce((count, seq) => count + this.#remove.run({ seq, state }).changes, 0);
  }

  setProgress(progress: readonly Progress[]): void {
    for (const { id, attempt, json } of progress) this.#progress.run(json, id, attempt);
  }
}

type StatsRow = Readonly<Record<(typeof states)[number] | 'overdue', number>> & {
  readonly oldestQueued: number | null;
  readonly oldestDelayed: number | null;
};
