// What the search for unknown tasks reads: tasks that wait, and names that are worked.

import { queue } from './boss.js';
import { attemptOf } from './job.js';
import { type JobTable, lastId, type Position, utc } from './table.js';

export interface WaitingJob {
  readonly id: string;
  readonly name: string;
  /** Which attempt is to follow. */
  readonly attempt: number;
  /** In the order in which tasks become ready. */
  readonly position: Position;
}

interface WaitingRow {
  readonly by: string;
  /** Where nothing waits, there is one row without a job. */
  readonly id: string | null;
  readonly name: string;
  readonly at: string;
  readonly was_taken: boolean;
  readonly retry_count: number;
  readonly unused: string | null;
}

/**
 * What waits behind a position and has been ready for so many ms, without tasks of these names: at most so many, and the
 * position of the last one that was looked at.
 */
export async function waiting(
  table: JobTable,
  after: Position,
  names: readonly string[],
  readyFor: number,
  limit: number,
): Promise<{ jobs: WaitingJob[]; end: Position }> {
  const ready = (jobs: string, state: string): string => `(
    SELECT id, group_id, start_after, state, retry_count, data FROM ${jobs}
    WHERE name = $1 AND state = '${state}' AND NOT blocked AND start_after <= ready.by
      AND (start_after, id) > ($2::timestamptz, $3::uuid) AND group_id <> ALL($4::text[])
    ORDER BY start_after, id LIMIT ${limit})`;
  const rows = await table.query<WaitingRow>(
    ({ jobs, now }) => `SELECT ${utc('ready.by')} AS by, id, group_id AS name, ${utc('start_after')} AS at,
        state = 'retry' AS was_taken, retry_count, CASE WHEN state = 'retry' THEN data->>'unused' END AS unused
      FROM (SELECT ${now} - $5::float8 * interval '1 millisecond' AS by) ready LEFT JOIN LATERAL (
        SELECT * FROM (${ready(jobs, 'created')} UNION ALL ${ready(jobs, 'retry')}) jobs
        ORDER BY start_after, id LIMIT ${limit}) jobs ON true
      ORDER BY start_after, id`,
    [queue, after.at, after.id, names, readyFor],
  );
  const jobs = rows.flatMap(({ id, name, at, was_taken, retry_count, unused }) => {
    if (id === null) return [];
    const attempt = was_taken ? attemptOf(retry_count + 1, Number(unused)) : 1;
    return [{ id, name, attempt, position: { at, id } }];
  });
  const last = jobs.length < limit ? undefined : jobs.at(-1);
  return { jobs, end: last?.position ?? { at: rows[0]?.by ?? after.at, id: lastId } };
}

/** Those of these names of which a task runs, or was over a short time ago. */
export async function worked(table: JobTable, names: readonly string[]): Promise<Set<string>> {
  if (names.length === 0) return new Set();
  const rows = await table.query<{ name: string }>(
    ({ jobs, now }) => `SELECT group_id AS name FROM ${jobs}
        WHERE name = $1 AND state = 'active' AND group_id = ANY($2::text[])
      UNION SELECT group_id AS name FROM ${jobs}
        WHERE name = $1 AND completed_on > ${now} - interval '15 seconds' AND group_id = ANY($2::text[])`,
    [queue, names],
  );
  return new Set(rows.map(({ name }) => name));
}
