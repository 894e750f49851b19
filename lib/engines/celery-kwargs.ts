// kwargs(): marks the last argument of a task as Python's keyword arguments.

import { isAwaitable } from '../awaitable.js';
import { BackgroundTasksError } from '../errors.js';

declare const keywordArguments: unique symbol;

/** What {@link kwargs} makes. Only the last argument of a task can be it. */
export type Kwargs<T extends object> = T & { readonly [keywordArguments]: true };

/**
 * Python's keyword arguments, as the last argument of `enqueue`.
 *
 * @example
 * const resize = task<[path: string, options: Kwargs<{ width: number }>]>('images.resize');
 * await res.locals.backgroundTasks.enqueue(resize, '/a.png', kwargs({ width: 100 })); // resize('/a.png', width=100)
 */
export function kwargs<T extends object>(values: T): Kwargs<T> {
  const keywords = { ...values };
  mark(keywords);
  return keywords;
}

const marked = new WeakSet<object>();

function mark<T extends object>(keywords: T): asserts keywords is Kwargs<T> {
  marked.add(keywords);
}

/** @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE` for keyword arguments before the last argument. */
export function splitArguments(args: readonly unknown[], task: string): { args: readonly unknown[]; kwargs: object } {
  const last = args.at(-1);
  const positional = isKeywords(last) ? args.slice(0, -1) : args;
  const misplaced = positional.findIndex(isKeywords);
  if (misplaced !== -1) {
    const what = `args[${misplaced}] is kwargs(), which only the last argument can be`;
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${what}`);
  }
  return { args: positional, kwargs: isKeywords(last) ? last : {} };
}

function isKeywords(value: unknown): value is object {
  return isAwaitable(value) && marked.has(value);
}
