// What is asked of pg-boss's table of jobs by statements of our own, since pg-boss has no call for it.

import { randomUUID } from 'node:crypto';
import type { TaskRecord } from '../../engine/engine.js';
import { type Boss, type Output, queue } from './boss.js';
import { attemptOf, type Counters, type TakenJob } from './job.js';

export class JobTable {
  readonly #boss: Boss;

  constructor(boss: Boss) {
    this.#boss = boss;
  }

  /**
   * What is known of a task. Without its result neither that nor the arguments are read: PostgreSQL keeps large values apart
   * from their row, and reads one when it is asked for a part of it.
   */
  async find(id: string, withResult: boolean): Promise<TaskRecord | undefined> {
    const [row] = await this.#query<Row>(
      (table) => `SELECT id, state, retry_count, created_on, started_on, completed_on,
          COALESCE(group_id, data->>'name', 'unknown') AS name,
          CASE WHEN ${isFirstAttempt} THEN NULL ELSE data->>'unused' END AS unused,
          CASE WHEN ${isLargeResult} THEN NULL ELSE output->>'error' END AS error,
          CASE WHEN ${isLargeResult} THEN NULL ELSE output->>'attempts' END AS attempts,
          ${withResult ? "output->>'result'" : 'NULL'} AS result
        FROM ${table} WHERE name = $1 AND id = $2`,
      [queue, id],
    );
    return row && recordOf(row);
  }

  /** The live task with this key: pg-boss can narrow a search to what waits, but not to what is live. */
  async holderOf(singletonKey: string): Promise<string | undefined> {
    const [row] = await this.#query<{ id: string }>(
      // By the index that keeps the keys apart.
      (table) => `SELECT id FROM ${table}
        WHERE name = $1 AND policy = 'exclusive' AND state <= 'active' AND COALESCE(singleton_key, '') = $2`,
      [queue, singletonKey],
    );
    return row?.id;
  }

  /**
   * What waits behind a position and has been ready for so many ms, without tasks of these names: at most so many, and the
   * position of the last one that was looked at.
   */
  async waiting(
    after: Position,
    names: readonly string[],
    readyFor: number,
    limit: number,
  ): Promise<{ jobs: WaitingJob[]; end: Position }> {
    const ready = (table: string, state: string): string => `(
      SELECT id, group_id, start_after, state, retry_count, data FROM ${table}
      WHERE name = $1 AND state = '${state}' AND NOT blocked AND start_after <= ready.by
        AND (start_after, id) > ($2::timestamptz, $3::uuid) AND group_id <> ALL($4::text[])
      ORDER BY start_after, id LIMIT ${limit})`;
    const rows = await this.#query<WaitingRow>(
      (table, now) => `SELECT ${utc('ready.by')} AS by, id, group_id AS name, ${utc('start_after')} AS at,
          state = 'retry' AS was_taken, retry_count, CASE WHEN state = 'retry' THEN data->>'unused' END AS unused
        FROM (SELECT ${now} - $5::float8 * interval '1 millisecond' AS by) ready LEFT JOIN LATERAL (
          SELECT * FROM (${ready(table, 'created')} UNION ALL ${ready(table, 'retry')}) jobs
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
  async worked(names: readonly string[]): Promise<Set<string>> {
    if (names.length === 0) return new Set();
    const rows = await this.#query<{ name: string }>(
      (table, now) => `SELECT group_id AS name FROM ${table}
          WHERE name = $1 AND state = 'active' AND group_id = ANY($2::text[])
        UNION SELECT group_id AS name FROM ${table}
          WHERE name = $1 AND completed_on > ${now} - interval '15 seconds' AND group_id = ANY($2::text[])`,
      [queue, names],
    );
    return new Set(rows.map(({ name }) => name));
  }

  // Each of these returns false where the job is not the worker's any more.

  /** While it runs. */
  note(job: TakenJob, counters: Counters): Promise<boolean> {
    return this.#update(job, () => 'data = data || $4::text::jsonb', [JSON.stringify(counters)]);
  }

  /** To be taken again in so many ms. */
  putBack(job: TakenJob, counters: Counters, delay: number): Promise<boolean> {
    const values = [JSON.stringify(counters), delay];
    return this.#update(
      job,
      (now) => `state = 'retry', heartbeat_on = NULL, output = NULL, data = data || $4::text::jsonb,
        start_after = ${now} + $5::float8 * interval '1 millisecond'`,
      values,
    );
  }

  /** For good. pg-boss's own fail() tries again up to the limit, which is there for workers that die; its retry() adds one to it. */
  fail(job: TakenJob, output: Output): Promise<boolean> {
    return this.#update(
      job,
      (now) => `state = 'failed', heartbeat_on = NULL, retry_limit = retry_limit - 1, completed_on = ${now},
        output = $4::text::jsonb`,
      [JSON.stringify(output)],
    );
  }

  async #update(job: TakenJob, changes: (now: string) => string, values: unknown[]): Promise<boolean> {
    const rows = await this.#query(
      (table, now) => `UPDATE ${table} SET ${changes(now)}
        WHERE name = $1 AND id = $2 AND retry_count = $3 AND state = 'active' RETURNING id`,
      [queue, job.id, job.retryCount, ...values],
    );
    return rows.length > 0;
  }

  async #query<Row>(text: (table: string, now: string) => string, values: unknown[]): Promise<Row[]> {
    const table = await this.#name();
    const now = `${table.slice(0, table.lastIndexOf('.'))}.job_now()`; // pg-boss's clock, which its tests may set.
    const { rows } = await this.#boss.getDb().executeSql(text(table, now), values);
    return rows as Row[];
  }

  /** As pg-boss itself writes it, with the schema. A queue that was deleted and made anew may be in another table. */
  async #name(): Promise<string> {
    let search = '';
    const executeSql = async (text: string): Promise<{ rows: never[] }> => {
      search = text;
      return { rows: [] };
    };
    await this.#boss.findJobs(queue, { id: randomUUID(), db: { executeSql } });
    const name = /\bFROM\s+(\S.*?)\s+WHERE\b/.exec(search)?.[1];
    if (name === undefined) throw new Error('this version of pg-boss does not tell the name of its table');
    return name;
  }
}

/** Where a task is in the order in which tasks become ready. */
export interface Position {
  /** UTC, with microseconds. */
  readonly at: string;
  readonly id: string;
}

export interface WaitingJob {
  readonly id: string;
  readonly name: string;
  /** Which attempt is to follow. */
  readonly attempt: number;
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

const lastId = 'ffffffff-ffff-ffff-ffff-ffffffffffff';

/** As text, whatever the connection's own format and time zone. */
const utc = (time: string): string => `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

/** Then it has no counts. */
const isFirstAttempt = "started_on IS NULL OR (retry_count = 0 AND state <> 'retry')";

/** What 0.1.0 stored of a failure in a database without transactions is completed too, but has an error, and is small. */
const isLargeResult = "state = 'completed' AND pg_column_size(output) > 8000";

/** Numbers within JSON are texts here, so that nothing depends on what somebody else has stored in it. */
interface Row {
  readonly id: string;
  readonly state: string;
  readonly retry_count: number;
  readonly created_on: Date;
  readonly started_on: Date | null;
  readonly completed_on: Date | null;
  readonly name: string;
  readonly unused: string | null;
  readonly error: string | null;
  readonly attempts: string | null;
  readonly result: string | null;
}

function recordOf(row: Row): TaskRecord {
  const { id, name, started_on, completed_on, error, result } = row;
  const state = stateOf(row);
  const attempts = started_on === null ? 0 : attemptOf(row.retry_count, Number(row.unused));
  const record: TaskRecord = { id, name, state, attempts, enqueuedAt: new Date(row.created_on) };
  if (started_on !== null && attempts > 0) record.startedAt = new Date(started_on);
  if (completed_on !== null) record.finishedAt = new Date(completed_on);
  if (state === 'succeeded' && result !== null) record.result = JSON.parse(result);
  if (state === 'failed' && error !== null) {
    record.error = JSON.parse(error);
    record.attempts = Number(row.attempts ?? attempts);
  }
  return record;
}

function stateOf({ state, error }: Row): TaskRecord['state'] {
  switch (state) {
    case 'created':
    case 'retry':
      return 'queued';
    case 'active':
      return 'running';
    case 'completed':
      return error === null ? 'succeeded' : 'failed';
    default:
      return 'failed';
  }
}
