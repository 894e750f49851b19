// What clients may know of a stored task.

import type { TaskRecord } from '../engine/engine.js';

/** Picked by name, since a record also holds the arguments, and that of another author's engine may hold more. */
export function statusOf(record: TaskRecord, withResult: boolean): object {
  const { id, name, state, attempts, progress, enqueuedAt, startedAt, finishedAt, result, error } = record;
  const status = { id, name, state, attempts, progress, enqueuedAt, startedAt, finishedAt };
  // Without the stack, which tells about the server.
  const shown = error && { name: error.name, message: error.message };
  return withResult ? { ...status, result, error: shown } : status;
}
