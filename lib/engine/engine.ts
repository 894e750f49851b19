// What enqueue() hands over to: the interface of an engine, and what its authors need of this library.

import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { isObject } from '../foreign-value.js';
import type { Check } from '../options.js';
import type { Logger, OnError } from '../task/report.js';
import type { Backoff } from '../task/retry.js';
import type { Task } from '../task/task.js';
import { serializeError } from './serialize.js';

/** Stores tasks durably and runs them in workers. See "Writing an engine" in docs/engines.md. */
export interface TaskEngine {
  /**
   * Resolves once the task is stored durably. Rejects with `ERR_ENGINE_UNAVAILABLE` if that cannot be done within 5
   * seconds, and with `ERR_INVALID_OPTION` for an option that the engine cannot honour.
   */
  enqueue(message: TaskMessage): Promise<{ id: string }>;
  /** Starts to run stored tasks in this process. */
  work(tasks: readonly Task[], options?: WorkerOptions): Promise<TaskWorker>;
  /** What is known of a task; undefined for an unknown id. */
  get(id: string): Promise<TaskRecord | undefined>;
  /** Ends its workers, waits for their running tasks, and gives up its connections. */
  close(): Promise<void>;
}

/** A task on its way to an engine. */
export interface TaskMessage {
  readonly name: string;
  /** JSON: {@link checkSerializable} has seen it. To be serialized before `enqueue` returns, since it is the caller's. */
  readonly args: readonly unknown[];
  /** Time limit of one attempt, in ms. Absent: the worker's task decides. */
  readonly timeout?: number;
  /** Absent: one attempt only. */
  readonly retries?: Backoff;
  /** ms before it may run. */
  readonly delay?: number;
  /** Higher first; absent means 0. */
  readonly priority?: number;
  /** While a task with this key is queued or runs, `enqueue` resolves with its id and stores nothing. */
  readonly key?: string;
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
   * they are given back, to run again elsewhere.
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

/** How long an engine may take to answer, in ms. */
const deadline = 4500;

/**
 * Rejects with `ERR_ENGINE_UNAVAILABLE` where the engine's client fails, or does not answer in time. What is done in several
 * steps looks at `late` before each, so that nothing is stored for a call that has been rejected. `trouble` may know why the
 * client fails, or undefined.
 */
export function store<T>(engine: string, write: Ask<T>, trouble?: () => unknown): Promise<T> {
  return answer(engine, 'stored', write, trouble);
}

/** The same for what `get` asks. */
export function load<T>(engine: string, read: Ask<T>, trouble?: () => unknown): Promise<T> {
  return answer(engine, 'read', read, trouble);
}

type Ask<T> = (late: AbortSignal) => Promise<T>;

async function answer<T>(engine: string, done: Done, ask: Ask<T>, trouble?: () => unknown): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise((resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer within ${deadline} ms`));
        controller.abort();
      }, deadline);
      ask(controller.signal).then(resolve, reject);
    });
  } catch (error) {
    throw error instanceof BackgroundTasksError ? error : engineUnavailable(engine, trouble?.() ?? error, done);
  } finally {
    clearTimeout(timer);
  }
}

type Done = 'stored' | 'read';

export function engineUnavailable(engine: string, cause: unknown, done: Done = 'stored'): BackgroundTasksError {
  const reason = serializeError(cause).message; // A client may reject with anything.
  return new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `${engine}: the task could not be ${done}: ${reason}`, {
    cause,
  });
}

/** For a message that asks for what the engine does not have. */
export function unsupported(engine: string, option: string, reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `${engine}: "${option}" is not possible: ${reason}`);
}

/** What is no UUID cannot be the id of a task on an engine whose ids are UUIDs, and need not be asked for. */
export function isUuid(id: string): boolean {
  return /^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$/.test(id);
}

export const isEngine: Check = (value) =>
  isObject(value) && ['enqueue', 'work', 'get', 'close'].every((name) => typeof Reflect.get(value, name) === 'function')
    ? undefined
    : 'an engine, such as sqlite({ path })';
