// A stored task as bull-board sees one: a job, whose buttons were pressed.

import type { JobRetryStatus, JobStatus, QueueJob, QueueJobJson } from '@bull-board/api/typings/app';
import type { TaskEngine, TaskRecord, TaskState } from '../engine/engine.js';
import { answerOf, conflict, refuse } from './refusal.js';

/** The board has a fixed list of tabs: what was cancelled stands with what has failed, and can be retried there. */
const tabs: Record<TaskState, JobStatus> = {
  queued: 'waiting',
  running: 'active',
  succeeded: 'completed',
  failed: 'failed',
  cancelled: 'failed',
};

export function tabOf({ state, runAt }: TaskRecord): JobStatus {
  return state === 'queued' && runAt !== undefined ? 'delayed' : tabs[state];
}

export class TaskJob implements QueueJob {
  readonly opts: { delay?: number; key?: string; priority?: number };
  readonly #engine: TaskEngine;
  readonly #record: TaskRecord;

  constructor(engine: TaskEngine, record: TaskRecord) {
    this.#engine = engine;
    this.#record = record;
    const { enqueuedAt, runAt, key, priority } = record;
    this.opts = {
      ...(runAt !== undefined && { delay: runAt.getTime() - enqueuedAt.getTime() }),
      ...(key !== undefined && { key }),
      ...(priority !== undefined && { priority }),
    };
  }

  /** The board reads it, although its type does not have it. */
  get id(): string {
    return this.#record.id;
  }

  async getState(): Promise<JobStatus> {
    return tabOf(this.#record);
  }

  toJSON(): QueueJobJson {
    const { id, name, attempts, args, result, progress, error, enqueuedAt, startedAt, finishedAt } = this.#record;
    return {
      id,
      name,
      attemptsMade: attempts,
      data: args,
      returnvalue: result,
      progress: progressOf(progress),
      failedReason: this.#failedReason(),
      stacktrace: error?.stack === undefined ? null : [error.stack],
      timestamp: enqueuedAt.getTime(),
      processedOn: startedAt?.getTime() ?? null,
      finishedOn: finishedAt?.getTime() ?? null,
      opts: this.opts,
      ...this.opts,
    };
  }

  async promote(): Promise<void> {
    if (await answerOf(this.#engine.promote(this.id))) return;
    throw conflict('The task no longer waits for its time');
  }

  async remove(): Promise<void> {
    if ((await answerOf(this.#engine.remove(this.id))) > 0) return;
    throw conflict('The task runs, and cannot be removed until it is over, or it is gone already');
  }

  async retry(status: JobRetryStatus): Promise<void> {
    if (status === 'completed') return refuse('A task that has succeeded is not run again: enqueue another one');
    if ((await answerOf(this.#engine.retry(this.id))) > 0) return;
    throw conflict(
      'The task is not run again: it no longer is a failed one, or another one with its key waits or runs',
    );
  }

  updateData(): Promise<void> {
    return refuse('The arguments of a stored task cannot be changed: remove it, and enqueue another one');
  }

  /** The board takes a job for a failed one if it has a reason. */
  #failedReason(): string {
    const { error, state } = this.#record;
    if (error !== undefined) return `${error.name}: ${error.message}`;
    return state === 'cancelled' ? 'The task was cancelled' : '';
  }
}

/** The board knows no null. As 0 it shows nothing. */
function progressOf(progress: unknown): QueueJobJson['progress'] {
  switch (typeof progress) {
    case 'string':
    case 'boolean':
    case 'number':
      return progress;
    default:
      return typeof progress === 'object' && progress !== null ? progress : 0;
  }
}
