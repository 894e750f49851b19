// A job of BullMQ as a record: what is told of a task.

import type { TaskRecord, TaskState } from '../../engine/engine.js';
import { priorityOf } from './job.js';

const fields = [
  'name',
  'timestamp',
  'ats',
  'processedOn',
  'finishedOn',
  'failedReason',
  'stacktrace',
  'progress',
  'deid',
  'priority',
  'tasks:cancelled',
  'tasks:refused',
] as const;

type Field = (typeof fields)[number] | 'data' | 'returnvalue';

/** What is read of a job. Arguments and results may be large. */
export const columns: Readonly<Record<'small' | 'withArgs' | 'all', readonly Field[]>> = {
  small: fields,
  withArgs: [...fields, 'data'],
  all: [...fields, 'data', 'returnvalue'],
};

/** `values`: those of the columns, then when it was completed, whether its lock is held, and its place among the delayed. */
export function recordOf(
  id: string,
  names: readonly Field[],
  values: readonly unknown[],
  now: number,
): TaskRecord | undefined {
  const value = (field: Field): string | undefined => textOf(values[names.indexOf(field)]);
  const [completedAt, isHeld, place] = values.slice(names.length);
  const name = value('name');
  if (name === undefined) return undefined;
  const attempts = Number(value('ats') ?? 0);
  const state = stateOf(value, textOf(completedAt) !== undefined, isHeld === 1);
  const record: TaskRecord = { id, name, state, attempts, enqueuedAt: dateOf(value('timestamp')) ?? new Date(0) };
  // Nobody knows a task that was refused and is put aside.
  const runAt = value('tasks:refused') === undefined ? Math.floor(Number(textOf(place) ?? 0) / 0x1000) : 0;
  const priority = priorityOf(Number(value('priority') ?? 0));
  return Object.assign(
    record,
    present({
      args: argsOf(value('data')),
      result: state === 'succeeded' ? resultOf(value('returnvalue')) : undefined,
      error: state === 'succeeded' ? undefined : errorOf(value('failedReason'), value('stacktrace')),
      runAt: state === 'queued' && runAt > now ? new Date(runAt) : undefined,
      progress: parse(value('progress'), undefined),
      key: keyOf(value('deid')),
      priority: priority === 0 ? undefined : priority,
      startedAt: attempts > 0 ? dateOf(value('processedOn')) : undefined,
      finishedAt: dateOf(value('finishedOn')),
    }),
  );
}

function stateOf(value: (field: Field) => string | undefined, isCompleted: boolean, isHeld: boolean): TaskState {
  if (value('finishedOn') === undefined) return isHeld ? 'running' : 'queued';
  if (isCompleted) return 'succeeded';
  return value('tasks:cancelled') === undefined ? 'failed' : 'cancelled';
}

/** Without what is undefined. */
function present(values: { [field in keyof TaskRecord]?: TaskRecord[field] | undefined }): Partial<TaskRecord> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined));
}

function textOf(value: unknown): string | undefined {
  return typeof value === 'string' ? value : undefined;
}

function dateOf(ms: string | undefined): Date | undefined {
  return ms === undefined ? undefined : new Date(Number(ms));
}

/** Somebody else may have written it. */
function parse(json: string | undefined, otherwise: unknown): unknown {
  if (json === undefined) return otherwise;
  try {
    return JSON.parse(json);
  } catch {
    return otherwise;
  }
}

/** JSON within JSON, as it was given to BullMQ. */
function argsOf(data: string | undefined): unknown[] | undefined {
  const message = parse(data, undefined);
  if (typeof message !== 'object' || message === null || !('args' in message)) return undefined;
  const args = typeof message.args === 'string' ? parse(message.args, undefined) : undefined;
  return Array.isArray(args) ? args : undefined;
}

function keyOf(deduplicationId: string | undefined): string | undefined {
  const key = parse(deduplicationId, deduplicationId);
  return typeof key === 'string' ? key : deduplicationId;
}

/** JSON within JSON, since BullMQ writes what it is given as JSON. What somebody else has returned stays as it is. */
function resultOf(stored: string | undefined): unknown {
  const value = parse(stored, undefined);
  if (typeof value !== 'string') return value;
  return value === '' ? undefined : parse(value, value);
}

/** Also of a reason that was written by somebody else. */
export function errorOf(failedReason: string | undefined, stacktrace?: string): TaskRecord['error'] {
  if (failedReason === undefined) return undefined;
  const stacks = parse(stacktrace, undefined);
  const stack: unknown = Array.isArray(stacks) ? stacks.at(-1) : undefined;
  return { ...named(failedReason), ...(typeof stack === 'string' && { stack }) };
}

function named(failedReason: string): { name: string; message: string } {
  const error = parse(failedReason, undefined);
  const isOurs = typeof error === 'object' && error !== null && 'name' in error && 'message' in error;
  return isOurs && typeof error.name === 'string' && typeof error.message === 'string'
    ? { name: error.name, message: error.message }
    : { name: 'Error', message: failedReason };
}
