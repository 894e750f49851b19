// A row of the table as a record: what is told of a task.

import type { TaskRecord, TaskState } from '../../engine/engine.js';

export interface RecordRow {
  readonly id: string;
  readonly name: string;
  readonly state: TaskState | 'delayed' | 'behind';
  readonly priority: number;
  readonly run_at: number;
  readonly attempts: number;
  readonly enqueued_at: number;
  readonly started_at: number | null;
  readonly finished_at: number | null;
  readonly key: string | null;
  readonly error: string | null;
  readonly progress: string | null;
  /** Absent where it was not asked for, as the arguments. */
  readonly result?: string | null;
  readonly args?: string;
}

const small = 'id, name, state, priority, run_at, attempts, enqueued_at, started_at, finished_at, key, error, progress';
export const columns = { small, withArgs: `${small}, args`, all: `${small}, args, result` };

export function recordOf(row: RecordRow): TaskRecord {
  const { id, name, attempts, priority, key, error, progress, result, args } = row;
  const state = row.state === 'delayed' || row.state === 'behind' ? 'queued' : row.state;
  const record: TaskRecord = { id, name, state, attempts, enqueuedAt: new Date(row.enqueued_at) };
  if (args !== undefined) record.args = parse(args, []);
  if (typeof result === 'string') record.result = parse(result, null);
  if (error !== null) record.error = parse(error, { name: 'Error', message: error });
  if (progress !== null) record.progress = parse(progress, null);
  if (row.state === 'delayed') record.runAt = new Date(row.run_at);
  if (key !== null) record.key = parse(key, key);
  if (priority !== 0) record.priority = priority;
  if (row.started_at !== null) record.startedAt = new Date(row.started_at);
  if (row.finished_at !== null) record.finishedAt = new Date(row.finished_at);
  return record;
}

/** Somebody else may have changed the row. */
function parse<T>(json: string, otherwise: T): T {
  try {
    return JSON.parse(json);
  } catch {
    return otherwise;
  }
}
