// Where code runs, by AsyncLocalStorage: the task that it belongs to, and the response to which after() adds.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import type { Enqueue } from './serializable.js';
import type { TaskFunction, TaskHandle, TaskInfo } from './types.js';

/** The attempt that the calling code belongs to. */
export interface TaskContext extends TaskInfo {
  /**
   * Aborted when the attempt's time is up (reason: a `TimeoutError`), when the task is cancelled (an `AbortError`), and when
   * `close()` reaches its timeout (a BackgroundTasksError, `ERR_TASK_ABANDONED`).
   */
  readonly signal: AbortSignal;
  /**
   * Reports how far the task has come: JSON of at most 64 kB, for the handle, `get`, `watch` and the event stream. Stored at most
   * twice a second, and the last value is kept. It never throws: what is no JSON, or larger, is ignored with a warning.
   */
  progress(value: unknown): void;
}

/** What the package's `enqueue` hands over to. */
export interface TaskEnqueuer {
  readonly enqueue: Enqueue;
}

/** What `after` adds to. */
export interface TaskAdder {
  add<A extends readonly unknown[], R = unknown>(task: TaskFunction<A, R>, ...args: A): TaskHandle<Awaited<R>>;
}

/**
 * Whatever outlives a request (a timer, a cache entry, a pending promise) keeps its scope alive. A scope must therefore hold
 * neither the request nor the response.
 */
export interface Scope {
  /** Undefined outside of tasks. */
  readonly task: TaskContext | undefined;
  /** Undefined where no response belongs to the task: in a worker. */
  readonly response: TaskAdder | undefined;
  /** The response, or the engine whose worker runs the task. */
  readonly enqueuer: TaskEnqueuer | undefined;
}

export const scope = new AsyncLocalStorage<Scope | undefined>();

/** False on Cloudflare Workers, where `enterWith()` throws. */
export const canEnter = hasEnterWith();

/** From Node 24 on, all stores are in one map, which is copied to set one of them. */
const copiesStores = Number.parseInt(process.versions.node, 10) >= 24;

/** Calls the function where {@link scope} holds this. */
export const runWithin: (inner: Scope, fn: () => void) => void =
  canEnter && copiesStores
    ? // run() makes a second copy to remove the store. An AsyncResource restores the old map instead: 210 ns rather than 265 for
      // a request without a task (bench/overhead). Where nothing is copied, run() is faster.
      (inner, fn) => new AsyncResource('BackgroundTasksScope').runInAsyncScope(enterAndCall, undefined, inner, fn)
    : (inner, fn) => scope.run(inner, fn);

function enterAndCall(inner: Scope, fn: () => void): void {
  scope.enterWith(inner);
  fn();
}

function hasEnterWith(): boolean {
  try {
    new AsyncResource('BackgroundTasks').runInAsyncScope(() => {
      scope.enterWith(undefined);
    });
    return true;
  } catch {
    return false;
  }
}
