// What users hold: the interface of an engine.

import { isObject } from '../foreign-value.js';
import type { Check } from '../options.js';
import type { Logger, OnError } from '../task/report.js';
import type { Enqueue } from '../task/serializable.js';
import type { Task } from '../task/task.js';

/** Stores tasks durably and runs them in workers. See "Writing an engine" in docs/engines.md. */
export interface TaskEngine {
  /**
   * Hands a task over, from anywhere in a program. When the promise resolves, the task survives a crash; a worker runs it at
   * least once.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_TASK` for what `task()` did not make, `ERR_TASK_NOT_SERIALIZABLE` for
   * arguments that are not JSON, `ERR_INVALID_OPTION` for what the engine cannot do, and `ERR_ENGINE_UNAVAILABLE` where it was
   * not stored within 5 seconds.
   */
  readonly enqueue: Enqueue;
  /**
   * Starts to run stored tasks in this process.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_TASK` for what `task(name, handler)` did not make and for two tasks of one
   * name, `ERR_INVALID_OPTION` for bad options, `ERR_ENGINE_UNAVAILABLE` where the store is out of reach.
   */
  work(tasks: readonly Task[], options?: WorkerOptions): Promise<TaskWorker>;
  /**
   * What is known of a task; undefined for an unknown id.
   *
   * Rejects with BackgroundTasksError `ERR_ENGINE_UNAVAILABLE`, and `ERR_INVALID_OPTION` where the engine cannot tell.
   */
  get(id: string, options?: GetOptions): Promise<TaskRecord | undefined>;
  /** Ends its workers, waits for their running tasks, and gives up its connections. Inside one of its tasks it waits for nothing. */
  close(): Promise<void>;
}

export interface GetOptions {
  /** Whether to read the task's result, which may be large. Default true. */
  result?: boolean | undefined;
}

export interface WorkerOptions {
  /** How many tasks run at the same time. Default 10. */
  concurrency?: number | undefined;
  /** Told of each task that failed for good, unless `onError` is given. Default `console`. */
  logger?: Logger | undefined;
  /** Called with each task that failed for good, instead of the logger. */
  onError?: OnError | undefined;
}

export interface TaskWorker {
  /**
   * Takes no more tasks and waits for the running ones. At the timeout (ms, default 10000) their signals are aborted and
   * they are given back, to run again elsewhere. Of several calls the shortest timeout counts. Inside one of its tasks it waits
   * for nothing.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
   */
  close(options?: { timeout?: number | undefined }): Promise<void>;
}

export interface TaskRecord {
  id: string;
  name: string;
  state: 'queued' | 'running' | 'succeeded' | 'failed';
  /** How many attempts have begun. */
  attempts: number;
  result?: unknown;
  error?: { name: string; message: string };
  enqueuedAt: Date;
  startedAt?: Date;
  finishedAt?: Date;
}

export const isEngine: Check = (value) =>
  isObject(value) && ['enqueue', 'work', 'get', 'close'].every((name) => typeof Reflect.get(value, name) === 'function')
    ? undefined
    : 'an engine, such as sqlite({ path })';
