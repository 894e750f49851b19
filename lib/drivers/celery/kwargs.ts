// kwargs(): marks the last argument of a task as the keyword arguments of the Python function.

import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';

declare const keywordArguments: unique symbol;

/** Made by {@link kwargs}. Only the last argument of a task can be of this type. */
export type Kwargs<T extends object> = T & { readonly [keywordArguments]: true };

/**
 * Marks a plain object as the keyword arguments of the Python function. Pass it to `enqueue` as the last argument.
 *
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE` for anything but a plain object.
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

/** The Object.prototype of another realm (vm, Jest) is another one, but has no prototype either. */
export function isPlain(values: unknown): values is object {
  if (!isObject(values)) return false;
  const prototype: object | null = Object.getPrototypeOf(values);
  return prototype === null || Object.getPrototypeOf(prototype) === null;
}

/**
 * Counts the positional arguments: all of them, except keyword arguments at the end.
 *
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE` for keyword arguments anywhere but at the end.
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
