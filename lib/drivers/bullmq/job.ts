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
  /** Of 0.1.0: how often a worker took it and did not begin it. Such a job is adopted when it is taken. */
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
export function attemptOf({ attemptsStarted }: Job<StoredMessage>): number {
  return attemptsStarted;
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

/** What {@link recordOf} reads of a job, the result last. */
export const fields = ['name', 'timestamp', 'ats', 'processedOn', 'finishedOn', 'failedReason', 'returnvalue'] as const;

type Field = (typeof fields)[number];

/** `state`: of a job that is not over, whether its lock is held; of one that is, whether it was completed. */
export function recordOf(
  id: string,
  values: readonly (string | null)[],
  state: { readonly isCompleted: boolean; readonly isHeld: boolean },
): TaskRecord | undefined {
  const value = (field: Field): string | undefined => values[fields.indexOf(field)] ?? undefined;
  const [name, processedOn, finishedOn] = [value('name'), value('processedOn'), value('finishedOn')];
  if (name === undefined) return undefined;
  const attempts = Number(value('ats') ?? 0);
  const record: TaskRecord = {
    id,
    name,
    state: state.isHeld ? 'running' : 'queued',
    attempts,
    enqueuedAt: new Date(Number(value('timestamp'))),
  };
  if (processedOn !== undefined && attempts > 0) record.startedAt = new Date(Number(processedOn));
  if (finishedOn === undefined) return record;
  record.finishedAt = new Date(Number(finishedOn));
  record.state = state.isCompleted ? 'succeeded' : 'failed';
  if (!state.isCompleted) record.error = errorOf(value('failedReason') ?? '');
  const result = resultOf(value('returnvalue'));
  if (state.isCompleted && result !== undefined) record.result = result;
  return record;
}

/** JSON within JSON, since BullMQ writes what it is given as JSON. What somebody else has returned stays as it is. */
function resultOf(stored = '""'): unknown {
  const value: unknown = JSON.parse(stored);
  if (typeof value !== 'string') return value;
  try {
    return value === '' ? undefined : JSON.parse(value);
  } catch {
    return value;
  }
}

/** Also of a reason that was written by somebody else. */
export function errorOf(failedReason: string): { name: string; message: string } {
  try {
    const { name, message }: { name?: unknown; message?: unknown } = JSON.parse(failedReason);
    if (typeof name === 'string' && typeof message === 'string') return { name, message };
  } catch {}
  return { name: 'Error', message: failedReason };
}
