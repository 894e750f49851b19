// What people do with the queue: look into it, cancel, retry, remove. pg-boss's own calls know neither our filters nor the fence
// of an attempt that runs.

import type { Page, Selection } from '../../engine/driver.js';
import type { EngineStats, TaskFilter, TaskRecord } from '../../engine/engine.js';
import { timeOfId } from '../../engine/id.js';
import type { Progress } from '../../engine/progress.js';
import { ownKey } from './behind.js';
import { queue } from './boss.js';
import { type Inserts, isDeadlock, isKeyTaken } from './inserts.js';
import { cancelledTier } from './job.js';
import { columns, conditions, type Row, recordOf } from './record.js';
import { firstPosition, type JobTable, listed, type Names, type Position, utc } from './table.js';

/** So many tasks are changed by one statement. */
const batch = 1000;

interface ChangedJob {
  /** Of one that is gone and had a key. */
  readonly freed_key?: string | null;
}

/** Changes those that fit of the tasks that the second value names. */
type Change = (names: Names) => string;

export class Operations {
  readonly #table: JobTable;
  readonly #inserts: Inserts;

  constructor(table: JobTable, inserts: Inserts) {
    this.#table = table;
    this.#inserts = inserts;
  }

  async find(ids: readonly string[], result: boolean): Promise<TaskRecord[]> {
    const rows = await this.#table.query<Row>(
      ({ jobs, now }) => `SELECT ${columns({ args: result, result }, now)} FROM ${jobs}
        WHERE name = $1 AND id IN ${listed('$2')}`,
      [queue, JSON.stringify(ids)],
    );
    return rows.map(recordOf);
  }

  async list({ after, limit, offset, ...filter }: Page): Promise<TaskRecord[]> {
    const before = after === undefined ? undefined : await this.#positionOf(after);
    const rows = await this.#table.query<Row>(
      ({ jobs, now }) => `SELECT ${columns({ args: true, result: false }, now)} FROM ${jobs}
        WHERE name = $1 AND ${conditionOf(filter)} AND ($2::text IS NULL OR group_id = $2)
          ${before === undefined ? '' : 'AND (created_on, id) < ($5::timestamptz, $6::uuid)'}
        ORDER BY created_on DESC, id DESC LIMIT $3 OFFSET $4`,
      [queue, filter.name ?? null, limit, offset, ...(before === undefined ? [] : [before.at, before.id])],
    );
    return rows.map(recordOf);
  }

  async stats(): Promise<EngineStats> {
    const due = ({ now }: Names): string => `state < 'active' AND NOT blocked AND start_after <= ${now}`;
    const [row] = await this.#table.query<Omit<EngineStats, 'oldestDueAt'> & { oldest: Date | null }>(
      (names) => `SELECT count(*) FILTER (WHERE state < 'active')::int AS queued,
          count(*) FILTER (WHERE ${due(names)})::int AS due,
          count(*) FILTER (WHERE state = 'active')::int AS running,
          count(*) FILTER (WHERE state = 'completed')::int AS succeeded,
          count(*) FILTER (WHERE state = 'failed')::int AS failed,
          count(*) FILTER (WHERE state = 'cancelled')::int AS cancelled,
          min(start_after) FILTER (WHERE ${due(names)}) AS oldest
        FROM ${names.jobs} WHERE name = $1`,
      [queue],
    );
    if (row === undefined) throw new Error('PostgreSQL has not counted');
    const { oldest, ...stats } = row;
    return oldest === null ? stats : { ...stats, oldestDueAt: new Date(oldest) };
  }

  async cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    const [found] = await this.#changeAndRelease<ChangedJob & { is_cancelled: boolean }>(
      ({ jobs, state, now }) => `UPDATE ${jobs} SET
          state = CASE state WHEN 'active' THEN state ELSE 'cancelled'::${state} END,
          completed_on = CASE state WHEN 'active' THEN completed_on ELSE ${now} END,
          group_tier = CASE state WHEN 'active' THEN '${cancelledTier}' END,
          singleton_key = ${ownKey}
        WHERE name = $1 AND id = $2 AND state <= 'active' RETURNING state = 'cancelled' AS is_cancelled,
          CASE WHEN state = 'cancelled' AND singleton_key <> id::text THEN singleton_key END AS freed_key`,
      id,
    );
    if (found === undefined) return (await this.find([id], false)).length > 0 ? 'over' : undefined;
    return found.is_cancelled ? 'cancelled' : 'signalled';
  }

  async marked(ids: readonly string[]): Promise<string[]> {
    const rows = await this.#table.query<{ id: string }>(
      ({ jobs }) => `SELECT id FROM ${jobs}
        WHERE name = $1 AND id IN ${listed('$2')} AND state = 'active' AND group_tier = '${cancelledTier}'`,
      [queue, JSON.stringify(ids)],
    );
    return rows.map(({ id }) => id);
  }

  retry(selection: Selection): AsyncGenerator<number> {
    const attempts = `CASE WHEN started_on IS NULL THEN 0 ELSE retry_count + 1 - ${numberIn("data->>'unused'")} END`;
    return this.#change(
      selection,
      // Of those of one key the first.
      ({ jobs, state, now }) => `UPDATE ${jobs} SET completed_on = NULL, group_tier = NULL, start_after = ${now},
          state = CASE WHEN started_on IS NULL THEN 'created'::${state} ELSE 'retry'::${state} END,
          data = data || jsonb_build_object('failed', 0, 'alone', 0, 'dropped', ${attempts})
        WHERE name = $1 AND ${hasFailed} AND id IN (
          SELECT DISTINCT ON (COALESCE(singleton_key, '')) id FROM ${jobs} over
          WHERE name = $1 AND id IN ${listed('$2')} AND ${hasFailed} AND jsonb_typeof(data) = 'object' AND NOT EXISTS (
            SELECT FROM ${jobs} live WHERE live.name = $1 AND live.policy = 'exclusive' AND live.state <= 'active'
              AND COALESCE(live.singleton_key, '') = COALESCE(over.singleton_key, ''))
          ORDER BY COALESCE(singleton_key, ''), created_on, id)
        RETURNING id`,
    );
  }

  remove(selection: Selection): AsyncGenerator<number> {
    return this.#change(
      selection,
      // Since they were found they may have come to another state.
      ({ jobs }) => `DELETE FROM ${jobs} WHERE name = $1 AND id IN ${listed('$2')} AND state <> 'active'
        AND ${'id' in selection ? 'true' : conditionOf(selection)}
        RETURNING CASE WHEN singleton_key <> id::text THEN singleton_key END AS freed_key`,
    );
  }

  async promote(id: string): Promise<boolean> {
    const promoted = await this.#table.query(
      ({ jobs, now }) => `UPDATE ${jobs} SET start_after = ${now} WHERE name = $1 AND id = $2
        AND state < 'active' AND start_after > ${now} AND start_after < ${now} + interval '1000 years' RETURNING id`,
      [queue, id],
    );
    return promoted.length > 0;
  }

  /** Of attempts that still run. */
  async setProgress(progress: readonly Progress[]): Promise<void> {
    // The data may be large, and is read only where it tells something.
    const attempt = `CASE WHEN retry_count + 1 = attempt THEN attempt
      ELSE retry_count + 1 - ${numberIn("jobs.data->>'unused'")} END`;
    await this.#table.query(
      ({ jobs }) => `UPDATE ${jobs} jobs SET output = CASE jsonb_typeof(output) WHEN 'object' THEN output ELSE '{}' END
          || jsonb_build_object('progress', json)
        FROM json_to_recordset($2::text::json) AS reported (reported_id uuid, attempt int, json text)
        WHERE name = $1 AND id = reported_id AND state = 'active' AND ${attempt} = attempt`,
      [queue, JSON.stringify(progress.map(({ id, ...rest }) => ({ reported_id: id, ...rest })))],
    );
  }

  async *#change(selection: Selection, change: Change): AsyncGenerator<number> {
    if ('id' in selection) {
      yield this.#changeListed([selection.id], change);
      return;
    }
    let from = firstPosition;
    while (true) {
      const rows = await this.#table.query<Position>(
        ({ jobs }) => `SELECT id, ${utc('created_on')} AS at FROM ${jobs}
          WHERE name = $1 AND ${conditionOf(selection)} AND ($2::text IS NULL OR group_id = $2)
            AND (created_on, id) > ($3::timestamptz, $4::uuid) ORDER BY created_on, id LIMIT ${batch}`,
        [queue, selection.name ?? null, from.at, from.id],
      );
      const ids = rows.map(({ id }) => id);
      yield this.#changeListed(ids, change);
      const last = rows.at(-1);
      if (rows.length < batch || last === undefined) return;
      from = last;
    }
  }

  async #changeListed(ids: readonly string[], change: Change): Promise<number> {
    try {
      return (await this.#changeAndRelease<ChangedJob>(change, JSON.stringify(ids))).length;
    } catch (error) {
      // Somebody else takes one of their keys, or changes them in another order, at this moment: one by one.
      if (ids.length === 1 && isKeyTaken(error)) return 0;
      if (ids.length === 1 || !(isKeyTaken(error) || isDeadlock(error))) throw error;
      let count = 0;
      for (const id of ids) count += await this.#changeListed([id], change);
      return count;
    }
  }

  /** Queues what waited behind those that are gone, before another one takes their keys. */
  #changeAndRelease<Row extends ChangedJob>(change: Change, selected: string): Promise<Row[]> {
    return this.#table.transaction(async (db) => {
      const changed = await this.#table.query<Row>(change, [queue, selected], db);
      const freed = changed.flatMap(({ freed_key }) => freed_key ?? []);
      if (freed.length > 0) await this.#inserts.release(freed, db);
      return changed;
    });
  }

  /** Of a task that was removed, by the time in its id. */
  async #positionOf(id: string): Promise<Position> {
    const [found] = await this.#table.query<Position>(
      ({ jobs }) => `SELECT id, ${utc('created_on')} AS at FROM ${jobs} WHERE name = $1 AND id = $2`,
      [queue, id],
    );
    return found ?? { id, at: (timeOfId(id) ?? new Date(0)).toISOString() };
  }
}

function conditionOf({ state }: TaskFilter): string {
  return state === undefined ? 'true' : conditions[state];
}

/** Also those that 0.1.0 has stored as completed, whose output is small. */
const hasFailed = `CASE WHEN state = 'completed' AND pg_column_size(output) <= 8000 THEN output->>'error' IS NOT NULL
  ELSE state IN ('failed', 'cancelled') END`;

/** Somebody else may have stored anything. */
function numberIn(text: string): string {
  return `CASE WHEN ${text} ~ '^\\d{1,9}$' THEN (${text})::int ELSE 0 END`;
}
