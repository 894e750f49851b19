// What a task looks like from the outside: its names, its states, its handle.

export type AnyFunction = (...args: never[]) => unknown;

/**
 * What a task is made of: a function that needs no `this`.
 *
 * The condition is always true. It makes TypeScript infer A before it checks a function that is written in place, so that a
 * default parameter without an argument has the type of its default instead of a type taken from A.
 */
export type TaskFunction<A extends readonly unknown[], R> = [A] extends [unknown]
  ? (this: void, ...args: A) => R
  : never;

/** What stays of a task after it has ended. */
export interface TaskIdentity {
  readonly id: string;
  readonly name: string;
}

export interface TaskInfo {
  readonly id: string;
  /** The name given to `task()`, or the function's own; `anonymous` if it has none. */
  readonly name: string;
  /** The number of the attempt, from 1. 0 if none has begun. */
  readonly attempt: number;
}

export type TaskStatus = 'pending' | 'running' | TaskOutcome['status'];

/** How a task ended. R is the awaited return type of its function. */
export type TaskOutcome<R = unknown> =
  | { readonly status: 'succeeded'; readonly value: R }
  | { readonly status: 'failed' | 'abandoned'; readonly error: unknown }
  | { readonly status: 'skipped' | 'cancelled' };

/** What `add` returns. R is the awaited return type of the function. */
export interface TaskHandle<R = unknown> {
  readonly id: string;
  readonly name: string;
  readonly status: TaskStatus;
  /** What the task last reported with `currentTask().progress()`, a copy; undefined before. */
  readonly progress: unknown;
  /** Resolves when the task is over; never rejects. */
  readonly finished: Promise<TaskOutcome<R>>;
  /**
   * A pending task never runs: returns true. The signal of a running task is aborted, and it ends as `cancelled` if it then
   * rejects: returns false. For a task that has ended it returns false, too.
   */
  cancel(): boolean;
}
