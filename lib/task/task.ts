// A task: what task() makes of a function, a name and options.

import { types } from 'node:util';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isGeneratorFunction, isObject } from '../foreign-value.js';
import { checkTaskOptions, copyTaskOptions, type TaskOptions } from './options.js';
import type { AnyFunction, TaskFunction } from './types.js';

/** A function with a name and options of its own. It is called like the function. */
export interface Task<A extends readonly unknown[] = never[], R = unknown> {
  (...args: A): R;
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): Task<A, R>;
}

/** A task whose handler is in another program. For `enqueue` only. */
export interface RemoteTask<A extends readonly unknown[] = never[]> {
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): RemoteTask<A>;
  /** Never present. It carries the types of the arguments. */
  readonly [argumentTypes]?: (...args: A) => void;
}

declare const argumentTypes: unique symbol;

/**
 * Gives a function a name and options. Without a function it names a task whose handler is in another program.
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
  checkName('task()', name);
  const [handler, options = {}] = rest;
  if (typeof handler === 'function') return localTask(name, handler, options, false);
  // A handler that is undefined has usually been misspelled.
  if (rest.length > 1 || (rest.length === 1 && (!isObject(handler) || types.isPromise(handler)))) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task("${name}"): the handler must be a function, not ${inspectShort(handler)}`,
    );
  }
  return remoteTask(name, handler ?? {});
}

/**
 * A task whose function hands its attempts over to something else, such as a thread. What takes an attempt calls its
 * `onBegin`. The attempt ends when the promise has settled, and not before that.
 *
 * @throws as {@link task} does.
 */
export function taskElsewhere<A extends readonly unknown[], R>(
  of: string,
  name: string,
  handler: (...args: A) => Promise<R>,
  options: TaskOptions,
): Task<A, Promise<R>> {
  checkName(of, name);
  return localTask(name, handler, options, true);
}

function checkName(of: string, name: unknown): void {
  if (typeof name === 'string' && name !== '') return;
  const message = `${of}: the name must be a string that is not empty, not ${inspectShort(name)}`;
  throw new BackgroundTasksError('ERR_INVALID_TASK', message);
}

function localTask<A extends readonly unknown[], R>(
  name: string,
  handler: (...args: A) => R,
  options: TaskOptions,
  isElsewhere: boolean,
): Task<A, R> {
  if (isGeneratorFunction(handler)) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task("${name}"): the handler must not be a generator function: nothing would run its body`,
    );
  }
  checkTaskOptions(options);
  const own = copyTaskOptions(options);
  const callable = Object.defineProperty((...args: A): R => handler(...args), 'name', { value: name });
  const defined = Object.assign(callable, {
    with: (changed: TaskOptions): Task<A, R> => localTask(name, handler, changedOptions(own, changed), isElsewhere),
  });
  define(defined, name, own, isElsewhere);
  return defined;
}

function remoteTask<A extends readonly unknown[]>(name: string, options: TaskOptions): RemoteTask<A> {
  checkTaskOptions(options);
  const own = copyTaskOptions(options);
  const defined: RemoteTask<A> = {
    name,
    with: (changed) => remoteTask(name, changedOptions(own, changed)),
  };
  define(defined, name, own, false);
  return defined;
}

/** The old options have been checked. The new ones are checked alone, so that the message is about them. */
function changedOptions(options: TaskOptions, changed: TaskOptions): TaskOptions {
  checkTaskOptions(changed);
  return { ...options, ...copyTaskOptions(changed) };
}

export interface Definition {
  /** The task itself: a Proxy of a task, or a function that inherits from one, is a function like any other. */
  readonly task: object;
  readonly name: string;
  readonly options: TaskOptions;
  /** Whether the function hands its attempts over: see {@link taskElsewhere}. */
  readonly isElsewhere: boolean;
}

/** The same in every copy of this package: an application may load several, of different versions. */
const definitionKey = Symbol.for('express-background-tasks.task');

interface Defined {
  readonly [definitionKey]?: unknown;
}

/** The tasks that were made here, and the tasks of other copies that have been checked. */
const definitions = new WeakMap<object, Definition>();

function define(task: object, name: string, options: TaskOptions, isElsewhere: boolean): void {
  const definition = Object.freeze({ task, name, options: Object.freeze(options), isElsewhere });
  definitions.set(task, definition);
  Object.defineProperty(task, definitionKey, { value: definition });
}

/**
 * What {@link task} made, in any copy of this package. Undefined for anything else.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for a task of another version with options that this one does not know.
 */
export function definitionOf(value: unknown): Definition | undefined {
  if (!isObject(value)) return undefined;
  const found = readDefinition(value);
  // Most tasks are plain functions. Reading the property costs less than looking into the map.
  return found === undefined ? undefined : (definitions.get(value) ?? adopt(value, found));
}

function readDefinition(value: Defined): unknown {
  try {
    return value[definitionKey];
  } catch {
    return undefined; // A Proxy may throw.
  }
}

function adopt(task: object, found: unknown): Definition | undefined {
  const foreign = copyForeign(found);
  if (foreign?.task !== task || typeof foreign.name !== 'string' || !isObject(foreign.options)) return undefined;
  const { name, options } = foreign;
  checkTaskOptions(options, `task "${name}" of another copy of express-background-tasks`);
  // The attempts of this copy are not those that the other copy hands over.
  const definition = { task, name, options: copyTaskOptions(options), isElsewhere: false };
  definitions.set(task, definition);
  return definition;
}

/** Anybody can set the property, so its value may be anything. */
function copyForeign(found: unknown): { [key in keyof Definition]?: unknown } | undefined {
  try {
    return isObject(found) ? { ...found } : undefined;
  } catch {
    return undefined;
  }
}
