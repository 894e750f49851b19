// What Celery's result backend tells of a task: JSON in Redis, under celery-task-meta-<id>.

import type { TaskRecord } from '../../engine/engine.js';
import { timeOfId } from '../../engine/id.js';
import { isObject } from '../../foreign-value.js';
import { type Meta, parseEnds, parseMeta } from './meta.js';
import type { CeleryRedis } from './redis.js';

export class CeleryResults {
  readonly #redis: CeleryRedis;

  constructor(redis: CeleryRedis) {
    this.#redis = redis;
  }

  /** Celery does not keep when a task was sent. Its id tells. */
  async find(id: string, fields: { readonly result: boolean }, late: AbortSignal): Promise<TaskRecord | undefined> {
    const enqueuedAt = timeOfId(id);
    if (enqueuedAt === undefined) return undefined;
    const read = (from: number, to: number): Promise<string> =>
      this.#redis.read(`celery-task-meta-${id}`, from, to, late);
    const meta = (fields.result ? undefined : await readEnds(id, read)) ?? (await readWhole(id, read));
    if (meta === undefined) return undefined;
    const record = recordOf(id, enqueuedAt, meta);
    if (!fields.result) delete record.result;
    return record;
  }

  close(): void {
    this.#redis.close();
  }
}

/** From one byte to another, both included; the last one is -1. */
type Read = (from: number, to: number) => Promise<string>;

async function readWhole(id: string, read: Read): Promise<Meta | undefined> {
  const json = await read(0, -1);
  return json === '' ? undefined : parseMeta(id, json);
}

/** In bytes, of each end. Most of what Celery keeps is smaller as a whole. */
const enough = 4096;

async function readEnds(id: string, read: Read): Promise<Meta | undefined> {
  const head = await read(0, enough - 1);
  if (head !== '' && Buffer.byteLength(head) < enough) return parseMeta(id, head);
  return parseEnds(head, await read(-enough, -1));
}

/**
 * Celery keeps neither the name nor the count of retries unless its setting `result_extended` is on, and never when the task
 * began.
 */
function recordOf(id: string, enqueuedAt: Date, { status, result, date_done: done, name, retries }: Meta): TaskRecord {
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
  const { exc_type: type, exc_message: args } = isFailure(result) ? result : {};
  const message: unknown = (Array.isArray(args) && args.length < 2 ? args[0] : args) ?? '';
  return {
    name: typeof type === 'string' ? type : 'Error',
    message: typeof message === 'string' ? message : JSON.stringify(message),
  };
}

function isFailure(value: unknown): value is Partial<Record<'exc_type' | 'exc_message', unknown>> {
  return isObject(value);
}

/** Celery writes the time in UTC, before version 5.3 without saying so. */
function utc(time: string): Date {
  return new Date(/(Z|[+-]\d\d:\d\d)$/.test(time) ? time : `${time}Z`);
}
