// A job of BullMQ and the task in it: what is stored, and which attempt it is.

import type { Job, JobsOptions } from 'bullmq';
import { unsupported } from '../../engine/calls.js';
import type { TaskMessage } from '../../engine/message.js';
import type { Backoff } from '../../task/retry.js';
import { kept } from './scripts/shared.js';

/** A job's data. */
export interface StoredMessage {
  /** JSON, as it was when enqueue was called. */
  readonly args: string;
  readonly timeout?: number | undefined;
  readonly retries?: Backoff | undefined;
  /** JSON. */
  readonly headers?: string | undefined;
  /** Of 0.1.0: how often a worker took it and did not begin it. Such a job is adopted when it is taken. */
  readonly unused?: number;
}

/**
 * Which attempt this is, from 1, or how many have begun. In a job's hash there are, beside BullMQ's fields:
 *
 * | field | written by | |
 * |---|---|---|
 * | `ats` | BullMQ, scripts/ | workers that took it, less those that gave it back without having begun it |
 * | `atm` | BullMQ, scripts/ | attempts that failed, since `retry()` if that was called |
 * | `stc` | BullMQ, scripts/ | workers that died while they held it, since one lived to tell that an attempt failed |
 * | `tasks:alone` | scripts/ | those of them that had begun it alone |
 * | `tasks:refused` | scripts/ | workers that did not run it, since they did not know it or ran another one alone |
 * | `tasks:told` | scripts/ | when it was reported as unknown |
 * | `tasks:due` | scripts/ | since when it is due, where it was queued again |
 * | `tasks:marked` | scripts/ | it runs and was cancelled |
 * | `tasks:cancelled` | scripts/ | it is over since it was cancelled |
 * | `tasks:behind` | scripts/ | the id of the task with its key after which it runs |
 */
export function attemptOf({ attemptsStarted }: Job<StoredMessage>): number {
  return attemptsStarted;
}

export function dataOf({ name, json, timeout, retries, headers }: TaskMessage): StoredMessage {
  if (/[\ud800-\udfff]/u.test(name)) throw unsupported('bullmq', 'name', 'it has half a surrogate pair');
  return { args: json, timeout, retries, headers: headers && JSON.stringify(headers) };
}

/** BullMQ's priorities run from 1, the most urgent, to twice this; a job without comes before all that have one. */
const middle = 2 ** 20;

export function storedPriorityOf({ priority = 0 }: Pick<TaskMessage, 'priority'>): number {
  if (Math.abs(priority) >= middle) {
    throw unsupported('bullmq', 'priority', `it must be more than ${-middle} and less than ${middle}`);
  }
  return middle - priority;
}

/** Of a job of somebody else it may be any number. */
export function priorityOf(stored: number): number {
  return stored === 0 ? 0 : middle - stored;
}

/** In JSON any text differs from any other, also in UTF-8. */
export function deduplicationIdOf(key: string): string {
  return JSON.stringify(key);
}

export function optionsOf(message: TaskMessage): JobsOptions {
  const { id, key } = message;
  const options = { ...lastingOptionsOf(message), jobId: id };
  return key === undefined ? options : { ...options, deduplication: { id: deduplicationIdOf(key) } };
}

/** Where the id and the key are given apart. */
export function lastingOptionsOf(message: TaskMessage): JobsOptions {
  const { retries, delay = 0 } = message;
  return {
    priority: storedPriorityOf(message),
    removeOnComplete: { age: kept },
    removeOnFail: { age: kept },
    ...(delay > 0 && { delay: Math.ceil(delay) }),
    // For workers of 0.1.0. Those of this version take all from the message.
    ...(retries !== undefined && { attempts: retries.limit + 1, backoff: { type: 'custom' } }),
  };
}
