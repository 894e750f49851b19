// What users hold: the interface of an engine.

import { isObject } from '../foreign-value.js';
import type { Check } from '../options.js';
import type { Logger, OnError } from '../task/report.js';
import type { Enqueue, SerializableArguments } from '../task/serializable.js';
import type { RemoteTask, Task } from '../task/task.js';

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
   * Hands one task over for each list of arguments: all of them in one write, or none. Resolves with the ids in the same
   * order; a `key` stands for one task.
   *
   * Rejects as `enqueue` does.
   */
  readonly enqueueMany: EnqueueMany;
  /**
   * Enqueues in a transaction of the application: what was enqueued is stored when the transaction commits, and was never
   * there when it is rolled back.
   *
   * @throws BackgroundTasksError `ERR_INVALID_OPTION` for anything else, and where the engine cannot do it.
   */
  within(transaction: object): TransactionEnqueuer;
  /**
   * Resolves when the store answers, and has the tables and queues that the engine needs. Nothing else has to wait for it:
   * it is for a start that should fail early, and for `within`.
   *
   * Rejects with BackgroundTasksError `ERR_ENGINE_UNAVAILABLE`.
   */
  ready(): Promise<void>;
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
   * Rejects with BackgroundTasksError `ERR_ENGINE_UNAVAILABLE`, and `ERR_INVALID_OPTION` where the engine cannot tell, as do
   * the methods below.
   */
  get(id: string, options?: GetOptions): Promise<TaskRecord | undefined>;
  /** Tasks, newest first, without their results. On BullMQ those of each state are newest first. */
  list(filter?: ListFilter): Promise<TaskRecord[]>;
  /** How many tasks are in which state. Those that are over are counted as long as they are kept. */
  stats(): Promise<EngineStats>;
  /**
   * A queued task never runs, and frees its `key`: `cancelled`. A running one has its signal aborted within 5 seconds, in
   * whichever process it runs: `signalled`; it ends as `cancelled` if it then rejects, and is not retried. `over`: too late.
   * Undefined for an unknown id.
   */
  cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined>;
  /**
   * Lets tasks that have failed or were cancelled run again, with their old id. Their attempts go on counting, their failures
   * begin anew. One whose `key` is live again is skipped. Resolves with the number of those that will run.
   */
  retry(selection: string | TaskFilter): Promise<number>;
  /** Lets a delayed task, or one that waits for its retry, run now. False if there is no such task. */
  promote(id: string): Promise<boolean>;
  /** Removes tasks that do not run. Resolves with how many they were. */
  remove(selection: string | TaskFilter): Promise<number>;
  /**
   * The record of a task now and after each change, until the task is over; nothing for an unknown id. The last one has the
   * result. All watchers of an engine share one query every 0.4 s.
   */
  watch(id: string, options?: WatchOptions): AsyncIterable<TaskRecord>;
  /**
   * Makes a schedule, or replaces the one of that name: each time that its pattern names enqueues exactly one task, however
   * many processes have a worker. Times at which no worker lived are made up by at most one task. Needs the package croner.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_OPTION` also for a bad pattern or time zone, and for a pattern that never
   * comes.
   */
  schedule<A extends readonly unknown[]>(
    name: string,
    when: ScheduleOptions,
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<void>;
  /** Removes a schedule. False if there is none of that name. What it has enqueued stays. */
  unschedule(name: string): Promise<boolean>;
  /** All schedules, each with its next slot. */
  schedules(): Promise<TaskSchedule[]>;
  /** Ends its workers, waits for their running tasks, and gives up its connections. Inside one of its tasks it waits for nothing. */
  close(): Promise<void>;
}

export type EnqueueMany = <A extends readonly unknown[]>(
  task: Task<A> | RemoteTask<A>,
  argLists: readonly Readonly<SerializableArguments<A>>[],
) => Promise<{ id: string }[]>;

export interface TransactionEnqueuer {
  readonly enqueue: Enqueue;
  readonly enqueueMany: EnqueueMany;
}

export interface GetOptions {
  /** Whether to read the task's result and arguments, which may be large. Default true. */
  result?: boolean | undefined;
}

export type TaskState = 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled';

export interface TaskFilter {
  state?: TaskState | undefined;
  /** The name of a task. */
  name?: string | undefined;
}

export interface ListFilter extends TaskFilter {
  /** How many at most, up to 1000. Default 50. */
  limit?: number | undefined;
  /** The id of the last one of the page before. */
  after?: string | undefined;
  /** How many of the newest to leave out. Default 0. */
  offset?: number | undefined;
}

export interface WatchOptions {
  /** Whether the last record has the result and the arguments, which may be large. Default true. */
  result?: boolean | undefined;
  /** Ends the iteration when it is aborted. */
  signal?: AbortSignal | undefined;
}

export interface ScheduleOptions {
  /** A pattern as croner takes it: five fields, six with seconds, seven with years, or `@hourly` and the like. */
  cron: string;
  /** The name of an IANA time zone. Default `UTC`. */
  timeZone?: string | undefined;
}

export interface TaskSchedule {
  name: string;
  cron: string;
  timeZone: string;
  /** The name of the task. */
  task: string;
  args: unknown[];
  /** Absent where the pattern names no time any more. */
  nextRunAt?: Date;
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
  /**
   * Whether the worker looks for tasks: false within 15 seconds once it no longer does or cannot reach its store, and once it
   * is closed. How long its tasks take does not matter.
   */
  health(): WorkerHealth;
}

export interface WorkerHealth {
  healthy: boolean;
  /** How many tasks run. */
  running: number;
  /** When the store last answered. */
  lastPollAt: Date;
  /** Why it is not healthy. */
  reason?: string;
}

/** Those that are over are counted as long as they are kept. */
export interface EngineStats {
  /** All that wait, also those that are not due yet. */
  queued: number;
  /** Those of them that may run now. */
  due: number;
  running: number;
  succeeded: number;
  failed: number;
  cancelled: number;
  /**
   * Since when the oldest of those that may run may do so. One that a worker has given back has kept its place, and so counts from
   * before it ran; on pg-boss from when it was given back.
   */
  oldestDueAt?: Date;
}

export interface TaskRecord {
  id: string;
  name: string;
  state: TaskState;
  /** How many attempts have begun. */
  attempts: number;
  result?: unknown;
  /** Of the last failure, also while a retry is due. */
  error?: { name: string; message: string; stack?: string };
  args?: unknown[];
  /** When a task that waits may run, where that is not now. */
  runAt?: Date;
  /** What the task last reported with `currentTask().progress()`. */
  progress?: unknown;
  key?: string;
  priority?: number;
  enqueuedAt: Date;
  startedAt?: Date;
  finishedAt?: Date;
}

export function isOver(state: TaskState): boolean {
  return state !== 'queued' && state !== 'running';
}

export const isEngine: Check = (value) =>
  isObject(value) && ['enqueue', 'work', 'get', 'close'].every((name) => typeof Reflect.get(value, name) === 'function')
    ? undefined
    : 'an engine, such as sqlite({ path })';

export const areWorkers: Check = (value) =>
  Array.isArray(value) &&
  value.every((worker) => isObject(worker) && typeof Reflect.get(worker, 'health') === 'function')
    ? undefined
    : 'an array of workers, as work() resolves with';
