// One task, from its first attempt to its end.

import { isNonRetryable } from '../errors.js';
import { Attempt, type AttemptOwner, type Surroundings } from '../task/attempt.js';
import type { TaskSettings } from '../task/options.js';
import type { Backoff } from '../task/retry.js';
import type { AddedTask } from './added-task.js';

/** The list that the task is on. */
export interface RunOwner {
  readonly scope: Surroundings;
  /** Called when an awaited attempt has ended. */
  resume(run: Run): void;
}

export class Run implements AttemptOwner {
  readonly is = 'running';
  /** The running attempt or, during the backoff, the last one. */
  attempt: Attempt;
  /** What the last attempt failed with. It has not been reported, so it becomes the cause if the task is abandoned. */
  failure: { readonly cause: unknown } | undefined = undefined;
  /** When its task was added, by the monotonic clock. */
  readonly addedAt: number;

  /** Begins a task that is pending. */
  constructor(
    readonly owner: RunOwner,
    readonly task: AddedTask,
    readonly settings: TaskSettings,
  ) {
    this.addedAt = task.begin();
    this.attempt = new Attempt(task.identity, 1, owner.scope);
  }

  /** Returns true if the attempt ended synchronously. Otherwise the owner is told later, unless the attempt is dropped. */
  start(): boolean {
    return this.attempt.run(this.task, this.settings, this);
  }

  /** Makes the next attempt. */
  next(): void {
    this.attempt = new Attempt(this.task.identity, this.attempt.attempt + 1, this.owner.scope);
    this.failure = undefined;
  }

  get isCancelled(): boolean {
    return this.attempt.isCancelled;
  }

  cancel(): void {
    this.attempt.cancel();
  }

  attemptOver(): void {
    this.owner.resume(this);
  }

  progressed(json: string): void {
    this.task.progressed(json);
  }

  /** Returns how the task ends after an attempt with this result, or the backoff if another attempt follows. */
  decide(result: unknown): 'succeeded' | 'cancelled' | 'failed' | Backoff {
    const { attempt, state } = this.attempt;
    const { backoff } = this.settings;
    if (state === 'succeeded') return 'succeeded';
    if (this.isCancelled) return 'cancelled';
    return backoff === undefined || attempt > backoff.limit || isNonRetryable(result) ? 'failed' : backoff;
  }
}
