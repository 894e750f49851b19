// A job as a record: what is told of a task.

import type { TaskRecord, TaskState } from '../../engine/engine.js';
import { dueAt } from './behind.js';
import { attemptOf } from './job.js';

export interface Fields {
  readonly args: boolean;
  readonly result: boolean;
}

/** Then it has no counts. */
const isFirstAttempt = "started_on IS NULL OR (retry_count = 0 AND state NOT IN ('retry', 'cancelled'))";

/** What 0.1.0 stored of a failure in a database without transactions is completed too, but has an error, and is small. */
const isLargeResult = "state = 'completed' AND pg_column_size(output) > 8000";

/** Then it has a key, and may tell it. */
const hasKey = 'singleton_key <> id::text';

/**
 * Of a large value nothing is read that was not asked for: PostgreSQL keeps it apart from its row, and reads all of it for any
 * part of it. Numbers within JSON are texts here, so that nothing depends on what somebody else has stored in it.
 */
export function columns({ args, result }: Fields, now: string): string {
  const small = (value: string): string => (result ? value : `CASE WHEN ${isLargeResult} THEN NULL ELSE ${value} END`);
  return `id, state, priority, retry_count, created_on, started_on, completed_on,
    CASE WHEN state < 'active' AND ${dueAt} > ${now} THEN ${dueAt} END AS run_at,
    COALESCE(group_id, data->>'name', 'unknown') AS name,
    CASE WHEN ${isFirstAttempt} THEN NULL ELSE data->>'unused' END AS unused,
    CASE WHEN ${hasKey} THEN data->>'key' END AS key,
    ${small("output->>'error'")} AS error,
    ${small("output->>'attempts'")} AS attempts,
    ${small("output->>'progress'")} AS progress,
    ${result ? "output->>'result'" : 'NULL'} AS result,
    ${args ? "data->>'args'" : 'NULL'} AS args`;
}

export interface Row {
  readonly id: string;
  readonly state: string;
  readonly priority: number;
  readonly retry_count: number;
  readonly created_on: Date;
  readonly started_on: Date | null;
  readonly completed_on: Date | null;
  readonly run_at: Date | null;
  readonly name: string;
  readonly unused: string | null;
  readonly key: string | null;
  readonly error: string | null;
  readonly attempts: string | null;
  readonly progress: string | null;
  readonly result: string | null;
  readonly args: string | null;
}

export function recordOf(row: Row): TaskRecord {
  const { id, name, started_on, completed_on, run_at, progress, key, args, priority } = row;
  const state = stateOf(row);
  const attempts = started_on === null ? 0 : attemptOf(row.retry_count, Number(row.unused));
  const record: TaskRecord = { id, name, state, attempts, enqueuedAt: new Date(row.created_on) };
  if (args !== null) record.args = parse(args, []);
  if (started_on !== null && attempts > 0) record.startedAt = new Date(started_on);
  if (completed_on !== null) record.finishedAt = new Date(completed_on);
  if (run_at !== null) record.runAt = new Date(run_at);
  if (key !== null) record.key = parse(key, key);
  if (priority !== 0) record.priority = priority;
  if (progress !== null) record.progress = parse(progress, progress);
  return { ...record, ...outputOf(row, state) };
}

function outputOf({ error, result, attempts }: Row, state: TaskState): Partial<TaskRecord> {
  if (state === 'succeeded') return result === null ? {} : { result: parse(result, result) };
  if (error === null) return {};
  return {
    error: parse(error, { name: 'Error', message: error }),
    ...(state === 'failed' && attempts !== null && { attempts: Number(attempts) }),
  };
}

/** Somebody else may have changed it. */
function parse<T>(json: string, otherwise: T): T {
  try {
    return JSON.parse(json);
  } catch {
    return otherwise;
  }
}

function stateOf({ state, error }: Row): TaskState {
  switch (state) {
    case 'created':
    case 'retry':
      return 'queued';
    case 'active':
      return 'running';
    case 'completed':
      return error === null ? 'succeeded' : 'failed';
    case 'cancelled':
      return 'cancelled';
    default:
      return 'failed';
  }
}

/**
 * How records of a state are found. What 0.1.0 has stored as completed although it failed is found by its id only: nothing but a
 * look at each result would tell it.
 */
export const conditions: { readonly [state in TaskState]: string } = {
  queued: "state < 'active'",
  running: "state = 'active'",
  succeeded: "state = 'completed'",
  failed: "state = 'failed'",
  cancelled: "state = 'cancelled'",
};
