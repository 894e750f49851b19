// kwargs(): marks the last argument of a task as Python's keyword arguments.

import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';

declare const keywordArguments: unique symbol;

/** What {@link kwargs} makes. Only the last argument of a task can be it. */
export type Kwargs<T extends object> = T & { readonly [keywordArguments]: true };

/**
 * Python's keyword arguments, as the last argument of `enqueue`.
 *
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE` for what is no plain object.
 * @example
 * const resize = task<[path: string, options: Kwargs<{ width: number }>]>('images.resize');
 * await res.locals.backgroundTasks.enqueue(resize, '/a.png', kwargs({ width: 100 })); // resize('/a.png', width=100)
 */
export function kwargs<T extends object>(values: T): Kwargs<T> {
  if (!isPlain(values)) {
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', 'kwargs() takes a plain object of names and values');
  }
  const keywords = { ...values };
  mark(keywords);
  return keywords;
}

const marked = new WeakSet<object>();

function mark<T extends object>(keywords: T): asserts keywords is Kwargs<T> {
  marked.add(keywords);
}

/** An object of another realm (vm, Jest) has another Object.prototype, which has no prototype either. */
export function isPlain(values: unknown): values is object {
  if (!isObject(values)) return false;
  const prototype: object | null = Object.getPrototypeOf(values);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * How many of the arguments are positional: all but keyword arguments at the end.
 *
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE` for keyword arguments before the last argument, or inside of one.
 */
export function countPositional(args: readonly unknown[], task: string): number {
  const last = args.at(-1);
  const checked = isKeywords(last) ? [...args.slice(0, -1), { ...last }] : args;
  const misplaced = checked.findIndex(holdsKeywords);
  if (misplaced !== -1) {
    const what = `args[${misplaced}] is or holds kwargs(), which only the last argument can be`;
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${what}`);
  }
  return isKeywords(last) ? args.length - 1 : args.length;
}

function holdsKeywords(value: unknown): boolean {
  return isKeywords(value) || (isObject(value) && Object.values(value).some(holdsKeywords));
}

function isKeywords(value: unknown): value is object {
  return isObject(value) && marked.has(value);
}
