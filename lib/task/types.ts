// What a task looks like from the outside: its names, its states, its handle.

export type AnyFunction = (...args: never[]) => unknown;

/**
 * What a task is made of: a function that needs no `this`.
 *
 * A conditional type that is always true, since TypeScript fills in what it knows of A before it looks at a function written in
 * place. A default parameter that no argument stands for then has the type of its default, and not that of a part of A.
 */
export type TaskFunction<A extends readonly unknown[], R> = [A] extends [unknown]
  ? (this: void, ...args: A) => R
  : never;

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

/** How a task ended. R is what its function returns, awaited. */
export type TaskOutcome<R = unknown> =
  | { readonly status: 'succeeded'; readonly value: R }
  | { readonly status: 'failed' | 'abandoned'; readonly error: unknown }
  | { readonly status: 'skipped' | 'cancelled' };

/** What `add` returns. R is what the function returns, awaited. */
export interface TaskHandle<R = unknown> {
  readonly id: string;
  readonly name: string;
  readonly status: TaskStatus;
  /** Resolves when the task is over; never rejects. */
  readonly finished: Promise<TaskOutcome<R>>;
  /**
   * Pending: the task never runs; returns true. Running: aborts its signal; it ends as `cancelled` if it then rejects;
   * returns false. Over: returns false.
   */
  cancel(): boolean;
}
