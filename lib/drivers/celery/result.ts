// Celery's result backend in Redis: a task's state is JSON under celery-task-meta-<id>.

import type { TaskRecord } from '../../engine/engine.js';
import { timeOfId } from '../../engine/id.js';
import { isObject } from '../../foreign-value.js';
import { type Meta, parseEnds, parseMeta } from './meta.js';
import type { RedisClient } from './redis-client.js';

export class CeleryResults {
  readonly #redis: RedisClient;

  constructor(redis: RedisClient) {
    this.#redis = redis;
  }

  ready(late: AbortSignal): Promise<void> {
    return this.#redis.ready(late);
  }

  async find(ids: readonly string[], fields: { readonly result: boolean }, late: AbortSignal): Promise<TaskRecord[]> {
    const records = await Promise.all(ids.map((id) => this.#findOne(id, fields, late)));
    return records.filter((record) => record !== undefined);
  }

  /** Celery does not record when a task was sent, but the id contains it. */
  async #findOne(id: string, fields: { readonly result: boolean }, late: AbortSignal): Promise<TaskRecord | undefined> {
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

/** Returns the bytes from one position to another, both included; -1 is the last one. */
type Read = (from: number, to: number) => Promise<string>;

async function readWhole(id: string, read: Read): Promise<Meta | undefined> {
  const json = await read(0, -1);
  return json === '' ? undefined : parseMeta(id, json);
}

/** How many bytes of each end. Most of the JSON that Celery keeps is smaller than that. */
const enough = 4096;

async function readEnds(id: string, read: Read): Promise<Meta | undefined> {
  const head = await read(0, enough - 1);
  if (head !== '' && Buffer.byteLength(head) < enough) return parseMeta(id, head);
  return parseEnds(head, await read(-enough, -1));
}

/**
 * Celery records the name and the number of retries only if `result_extended` is on, and it never records when the task
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
  // What Python passes as "meta" to update_state().
  if (record.state === 'running' && status !== 'STARTED' && result !== undefined) record.progress = result;
  if (typeof done === 'string') record.finishedAt = utc(done);
  return record;
}

/** A task can set a state of its own, such as PROGRESS, only while it runs. */
function stateOf(status: unknown): TaskRecord['state'] {
  switch (status) {
    case 'SUCCESS':
      return 'succeeded';
    case 'FAILURE':
      return 'failed';
    case 'REVOKED':
      return 'cancelled';
    case 'PENDING':
    case 'RECEIVED':
    case 'RETRY':
      return 'queued';
    default:
      return 'running';
  }
}

/** Celery records the class and the arguments of an exception. A single argument is the message. */
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

/** Celery writes UTC, before version 5.3 without a time zone. */
function utc(time: string): Date {
  return new Date(/(Z|[+-]\d\d:\d\d)$/.test(time) ? time : `${time}Z`);
}
