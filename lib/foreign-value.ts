// Values that this library did not make: what a task returned or threw, and what a user passed in. Looking at one can throw.

import { inspect, types } from 'node:util';

/** True of whatever can have properties, also of a function. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' ? value !== null : typeof value === 'function';
}

/**
 * Whatever may have a `then`. It is not looked at here, since looking can throw: `await` looks once, and turns what it
 * meets into a rejection. A plain object costs one microtask by it.
 */
export const isAwaitable: (value: unknown) => value is object = isObject;

/** For what was returned where nothing can be awaited: its rejection must not go unhandled. */
export async function ignore(awaitable: object): Promise<void> {
  try {
    await awaitable;
  } catch {
    // What is reported instead is that it was returned at all.
  }
}

/** True of errors, also where `instanceof Error` and `isNativeError` are not: of another realm, DOMException in Node 20. */
export function isError(value: unknown): value is Error {
  try {
    return typeof (value as Error | null | undefined)?.stack === 'string';
  } catch {
    return false; // It throws when it is looked at.
  }
}

/** Writes an error's stack down. Until it has been read, V8 keeps alive what the functions in it close over. */
export function writeStack(error: Error): void {
  isError(error); // Reads it, and it may throw: a program can have an Error.prepareStackTrace of its own.
}

/** Names a value in a message: short, and whatever the value is. */
export function inspectShort(value: unknown): string {
  // Node 20 hangs the stores of every AsyncLocalStorage on a promise, and inspect() prints them.
  if (types.isPromise(value)) return 'a promise';
  try {
    return inspect(value, { depth: 0, breakLength: Number.POSITIVE_INFINITY, maxStringLength: 80 });
  } catch {
    return 'a value that throws when it is looked at';
  }
}
