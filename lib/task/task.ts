// A task: what task() makes of a function, a name and options.

import { types } from 'node:util';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isObject } from '../foreign-value.js';
import { checkTaskOptions, copyTaskOptions, type TaskOptions } from './options.js';
import type { AnyFunction, TaskFunction } from './types.js';

/** A function with a name and options of its own, callable like the function. */
export interface Task<A extends readonly unknown[] = never[], R = unknown> {
  (...args: A): R;
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): Task<A, R>;
}

/** A task whose handler lives in another program: for `enqueue` only. */
export interface RemoteTask<A extends readonly unknown[] = never[]> {
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): RemoteTask<A>;
  /** Never there: it carries the types of the arguments. */
  readonly [argumentTypes]?: (...args: A) => void;
}

declare const argumentTypes: unique symbol;

/**
 * Gives a function a name and options. Without a function, it names a task whose handler lives in another program.
 *
 * @throws BackgroundTasksError `ERR_INVALID_TASK` for a bad name or handler, `ERR_INVALID_OPTION` for bad options.
 * @example
 * const sendMail = task('send-mail', async (to: string) => { … }, { timeout: 5000, retries: 3 });
 * const resize = task<[path: string, width: number]>('images.resize');
 */
export function task<A extends readonly unknown[] = [], R = unknown>(
  name: string,
  handler: TaskFunction<A, R>,
  options?: TaskOptions,
): Task<A, R>;
export function task<A extends readonly unknown[]>(name: string, options?: TaskOptions): RemoteTask<A>;
export function task(
  name: string,
  ...rest: [handler?: AnyFunction | TaskOptions | undefined, options?: TaskOptions | undefined]
): Task | RemoteTask {
  if (typeof name !== 'string' || name === '') {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task(): the name must be a string that is not empty, not ${inspectShort(name)}`,
    );
  }
  const [handler, options = {}] = rest;
  if (typeof handler === 'function') return localTask(name, handler, options);
  // A handler that is undefined is mostly one that was misspelled.
  if (rest.length > 1 || (rest.length === 1 && (!isObject(handler) || types.isPromise(handler)))) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task("${name}"): the handler must be a function, not ${inspectShort(handler)}`,
    );
  }
  return remoteTask(name, handler ?? {});
}

function localTask<A extends readonly unknown[], R>(
  name: string,
  handler: (...args: A) => R,
  options: TaskOptions,
): Task<A, R> {
  if (types.isGeneratorFunction(handler)) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task("${name}"): the handler must be no generator function, whose body nobody would run`,
    );
  }
  checkTaskOptions(options);
  const own = copyTaskOptions(options);
  const callable = Object.defineProperty((...args: A): R => handler(...args), 'name', { value: name });
  const defined = Object.assign(callable, {
    with: (changed: TaskOptions): Task<A, R> => localTask(name, handler, changedOptions(own, changed)),
  });
  definitions.set(defined, { name, options: own });
  return defined;
}

function remoteTask<A extends readonly unknown[]>(name: string, options: TaskOptions): RemoteTask<A> {
  checkTaskOptions(options);
  const own = copyTaskOptions(options);
  const defined: RemoteTask<A> = {
    name,
    with: (changed) => remoteTask(name, changedOptions(own, changed)),
  };
  definitions.set(defined, { name, options: own });
  return defined;
}

/** The old options have been checked; the new ones are checked alone, so that the message speaks of them. */
function changedOptions(options: TaskOptions, changed: TaskOptions): TaskOptions {
  checkTaskOptions(changed);
  return { ...options, ...copyTaskOptions(changed) };
}

export interface Definition {
  readonly name: string;
  readonly options: TaskOptions;
}

const definitions = new WeakMap<object, Definition>();

/** What {@link task} made of it; undefined for anything else. */
export function definitionOf(defined: unknown): Definition | undefined {
  return isObject(defined) ? definitions.get(defined) : undefined;
}
