// A task on its way to a store: what enqueue() makes of a task and its arguments.

import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { readTaskOptions, type TaskOptions, type TaskSettings } from '../task/options.js';
import type { Backoff } from '../task/retry.js';
import { type Definition, definitionOf } from '../task/task.js';
import type { Headers } from './headers.js';
import { newId } from './id.js';
import { serializeArguments } from './serialize.js';

export interface TaskMessage {
  /** A UUID of version 7, in lower case. */
  readonly id: string;
  readonly name: string;
  /** The arguments as the caller gave them, who may change them once `enqueue` has returned: take {@link json}. */
  readonly args: readonly unknown[];
  /** The arguments as JSON: an array. */
  readonly json: string;
  /** Time limit of one attempt, in ms; 0 for none, which JSON can hold. Absent: the worker's task decides. */
  readonly timeout?: number;
  /** Absent: one attempt only. */
  readonly retries?: Backoff;
  /** ms before it may run. */
  readonly delay?: number;
  /** Higher first; absent means 0. */
  readonly priority?: number;
  /** While a task with this key is queued or runs, `enqueue` resolves with its id and stores nothing. */
  readonly key?: string;
  /** With a key: where one runs, exactly one more is stored, with these arguments, and runs after it. */
  readonly whileRunning?: 'again';
  /** What a worker is to know of the call, such as its trace. Absent: nothing. */
  readonly headers?: Headers;
}

/**
 * @throws BackgroundTasksError `ERR_INVALID_TASK` for what `task()` did not make, `ERR_INVALID_OPTION` for a task with `when`,
 * `ERR_TASK_NOT_SERIALIZABLE` for arguments that are not JSON.
 */
export function messageOf(task: unknown, args: readonly unknown[], call = 'enqueue()'): TaskMessage {
  const { name, options } = definedTask(task, call);
  if (options.when !== undefined) {
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `${call}: task "${name}" has "when", which is for add()`);
  }
  const { backoff } = readTaskOptions(options);
  const message: Mutable<TaskMessage> = { id: newId(), name, args, json: serializeArguments(args, name) };
  if (options.timeout !== undefined)
    message.timeout = options.timeout === Number.POSITIVE_INFINITY ? 0 : options.timeout;
  if (backoff !== undefined) message.retries = backoff;
  if (options.delay !== undefined) message.delay = options.delay;
  if (options.priority !== undefined) message.priority = options.priority;
  if (options.key !== undefined) message.key = options.key;
  if (options.whileRunning === 'again') {
    if (options.key === undefined) {
      throw new BackgroundTasksError('ERR_INVALID_OPTION', `${call}: task "${name}" has "whileRunning" and no "key"`);
    }
    message.whileRunning = 'again';
  }
  return message;
}

/** The task with the settings of the middleware in place of what it does not say itself. */
export function withDefaults<T extends { with(options: TaskOptions): T }>(task: T, defaults: TaskSettings): T {
  const { options } = definedTask(task);
  const added: TaskOptions = {};
  if (options.timeout === undefined && defaults.timeout !== Number.POSITIVE_INFINITY) added.timeout = defaults.timeout;
  if (options.retries === undefined && defaults.backoff !== undefined) added.retries = defaults.backoff;
  return Object.keys(added).length === 0 ? task : task.with(added);
}

function definedTask(task: unknown, call = 'enqueue()'): Definition {
  const definition = definitionOf(task);
  if (definition !== undefined) return definition;
  const message = `${call}: a task must be made by task(), which names it, not ${inspectShort(task)}`;
  throw new BackgroundTasksError('ERR_INVALID_TASK', message);
}

type Mutable<T> = { -readonly [K in keyof T]: T[K] };
