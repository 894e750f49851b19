// What Celery's result backend tells of a task: JSON under celery-task-meta-<id> (celery/backends/base.py).

import type { TaskRecord } from '../../engine/engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { isAwaitable } from '../../foreign-value.js';

/**
 * Celery keeps neither the name nor the count of retries unless its setting `result_extended` is on, and never when the task
 * was sent or begun.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for what is not JSON.
 */
export function readMeta(id: string, enqueuedAt: Date, json: string): TaskRecord {
  const { status, result, date_done: done, name, retries } = parse(id, json);
  const record: TaskRecord = {
    id,
    name: typeof name === 'string' ? name : '',
    state: stateOf(status),
    attempts: typeof retries === 'number' ? retries + 1 : 1,
    enqueuedAt,
  };
  if (record.state === 'succeeded') record.result = result;
  if (record.state === 'failed') record.error = errorOf(result);
  if (typeof done === 'string') record.finishedAt = utc(done);
  return record;
}

function parse(id: string, json: string): Meta {
  let meta: unknown;
  try {
    meta = JSON.parse(json);
  } catch (cause) {
    const message = `celery: the result of task ${id} is not JSON: the workers' "result_serializer" must be "json"`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
  }
  return isObject<Meta>(meta) ? meta : {};
}

type Meta = Partial<Record<'status' | 'result' | 'date_done' | 'name' | 'retries', unknown>>;

/** Tasks have states of their own making, such as PROGRESS, only while they run. */
function stateOf(status: unknown): TaskRecord['state'] {
  switch (status) {
    case 'SUCCESS':
      return 'succeeded';
    case 'FAILURE':
    case 'REVOKED':
      return 'failed';
    case 'PENDING':
    case 'RECEIVED':
    case 'RETRY':
      return 'queued';
    default:
      return 'running';
  }
}

/** Python keeps an exception as its class and its arguments, of which an only one is the message. */
function errorOf(result: unknown): { name: string; message: string } {
  const { exc_type: type, exc_message: args } = isObject<Failure>(result) ? result : {};
  const message: unknown = (Array.isArray(args) && args.length < 2 ? args[0] : args) ?? '';
  return {
    name: typeof type === 'string' ? type : 'Error',
    message: typeof message === 'string' ? message : JSON.stringify(message),
  };
}

type Failure = Partial<Record<'exc_type' | 'exc_message', unknown>>;

/** Of an object nothing is known: each of its properties may be missing, and be anything. */
function isObject<T extends Partial<Record<string, unknown>>>(value: unknown): value is T {
  return isAwaitable(value);
}

/** Celery writes the time in UTC, before version 5.3 without saying so. */
function utc(time: string): Date {
  return new Date(/(Z|[+-]\d\d:\d\d)$/.test(time) ? time : `${time}Z`);
}
