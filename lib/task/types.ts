// What a task looks like from the outside: its names, its states, its handle.

export type AnyFunction = (...args: never[]) => unknown;

/** What can still be told of a task when all else of it is gone. */
export interface TaskIdentity {
  readonly id: string;
  readonly name: string;
}

export interface TaskInfo {
  readonly id: string;
  /** The name given to `task()`, or the function's own; `anonymous` if it has none. */
  readonly name: string;
  /** Counts from 1; 0 before the first one. */
  readonly attempt: number;
}

export type TaskStatus = 'pending' | 'running' | TaskOutcome['status'];

/** How a task ended. */
export type TaskOutcome =
  | { readonly status: 'succeeded'; readonly value: unknown }
  | { readonly status: 'failed' | 'abandoned'; readonly error: unknown }
  | { readonly status: 'skipped' | 'cancelled' };

/** What `add` returns. */
export interface TaskHandle {
  readonly id: string;
  readonly name: string;
  readonly status: TaskStatus;
  /** Resolves when the task is over; never rejects. */
  readonly finished: Promise<TaskOutcome>;
  /**
   * Pending: the task never runs; returns true. Running: aborts its signal; it ends as `cancelled` if it then rejects;
   * returns false. Over: returns false.
   */
  cancel(): boolean;
}
