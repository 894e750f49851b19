// A job of BullMQ and the task in it: what is stored, which attempt it is, and what is told of it.

import type { Job, JobsOptions } from 'bullmq';
import { unsupported } from '../../engine/create-engine.js';
import type { TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { Backoff } from '../../task/retry.js';

/** A job's data. */
export interface StoredMessage {
  /** JSON, as it was when enqueue was called. */
  readonly args: string;
  readonly timeout?: number | undefined;
  readonly retries?: Backoff | undefined;
  /** Version 0.1.0 counts here how often a worker took it and did not begin it, and leaves `ats` as it is. */
  readonly unused?: number;
}

/**
 * Which attempt this is, from 1, or how many have begun. The counters in a job's hash:
 *
 * | field | written by | counts |
 * |---|---|---|
 * | `ats` | BullMQ, held-job.ts | workers that took it, less those that gave it back without having begun it |
 * | `atm` | BullMQ | attempts that failed |
 * | `stc` | BullMQ, held-job.ts | workers that died while they held it, since one lived to tell that an attempt failed |
 * | `tasks:alone` | held-job.ts | those of them that had begun it alone |
 * | `tasks:refused` | held-job.ts | workers that did not run it, since they did not know it or ran another one alone |
 */
export function attemptOf({ attemptsStarted, data }: Job<StoredMessage>): number {
  return attemptsStarted - (data?.unused ?? 0); // Somebody else may have made the job.
}

export function dataOf({ name, json, timeout, retries }: TaskMessage): StoredMessage {
  if (/[\ud800-\udfff]/u.test(name)) throw unsupported('bullmq', 'name', 'it has half a surrogate pair');
  return { args: json, timeout, retries };
}

const kept = { age: 7 * 24 * 60 * 60 };
/** BullMQ's priorities run from 1, the most urgent, to twice this; a job without comes before all that have one. */
const middle = 2 ** 20;

export function optionsOf({ id, retries, delay = 0, priority = 0, key }: TaskMessage): JobsOptions {
  if (Math.abs(priority) >= middle) {
    throw unsupported('bullmq', 'priority', `it must be more than ${-middle} and less than ${middle}`);
  }
  return {
    jobId: id,
    priority: middle - priority,
    removeOnComplete: kept,
    removeOnFail: kept,
    ...(delay > 0 && { delay: Math.ceil(delay) }),
    // The worker takes the backoff from the message.
    ...(retries !== undefined && { attempts: retries.limit + 1, backoff: { type: 'custom' } }),
    // Freed when the job is over. In JSON any text differs from any other, also in UTF-8.
    ...(key !== undefined && { deduplication: { id: JSON.stringify(key) } }),
  };
}

/** In what is over, only a task that has succeeded has a value. */
export function recordOf(id: string, job: Job<StoredMessage>, isRunning: boolean): TaskRecord {
  const { name, timestamp, processedOn, finishedOn, failedReason } = job;
  const attempts = attemptOf(job);
  const record: TaskRecord = {
    id,
    name,
    state: isRunning ? 'running' : 'queued',
    attempts,
    enqueuedAt: new Date(timestamp),
  };
  if (processedOn !== undefined && attempts > 0) record.startedAt = new Date(processedOn);
  if (finishedOn === undefined) return record;
  record.finishedAt = new Date(finishedOn);
  const value: unknown = job.returnvalue;
  record.state = typeof value === 'string' ? 'succeeded' : 'failed';
  if (record.state === 'failed') record.error = errorOf(failedReason);
  else if (typeof value === 'string' && value !== '') record.result = JSON.parse(value);
  return record;
}

/** Also of a reason that was written by somebody else. */
export function errorOf(failedReason: string): { name: string; message: string } {
  try {
    const { name, message }: { name?: unknown; message?: unknown } = JSON.parse(failedReason);
    if (typeof name === 'string' && typeof message === 'string') return { name, message };
  } catch {}
  return { name: 'Error', message: failedReason };
}
