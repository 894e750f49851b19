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
