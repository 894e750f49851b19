// Values that are not this library's: what a task has returned or thrown, and what a user has passed. Looking at one may throw.

import { inspect, types } from 'node:util';

/** True for whatever can have properties, functions included. */
export function isObject(value: unknown): value is object {
  return typeof value === 'object' ? value !== null : typeof value === 'function';
}

/** True for a bound one as well, which isGeneratorFunction() denies. */
export function isGeneratorFunction(value: unknown): boolean {
  if (types.isGeneratorFunction(value)) return true;
  try {
    const tag: unknown = isObject(value) && Reflect.get(value, Symbol.toStringTag);
    return tag === 'GeneratorFunction' || tag === 'AsyncGeneratorFunction';
  } catch {
    return false; // A Proxy that throws.
  }
}

/**
 * Whether a value may have a `then` method. That is not looked up here, since it may throw: `await` looks once, and turns an
 * error into a rejection. The price is one microtask for a plain object.
 */
export const isAwaitable: (value: unknown) => value is object = isObject;

/** For a promise that was returned where none can be awaited. It must not become an unhandled rejection. */
export async function ignore(awaitable: object): Promise<void> {
  try {
    await awaitable;
  } catch {
    // The caller reports that there was a promise at all.
  }
}

/** True for errors of another realm as well, and for a DOMException in Node 20, which isNativeError() denies. */
export function isError(value: unknown): value is Error {
  try {
    return typeof (value as Error | null | undefined)?.stack === 'string';
  } catch {
    return false; // It throws when it is read.
  }
}

/** Reads an error's stack, since V8 keeps whatever the functions in it close over alive until then. */
export function writeStack(error: Error): void {
  isError(error); // It reads the stack, which may throw: a program can have its own Error.prepareStackTrace.
}

/** Describes any value in a few words, for a message. */
export function inspectShort(value: unknown): string {
  // In Node 20 a promise has the stores of every AsyncLocalStorage as properties, and inspect() prints them.
  if (types.isPromise(value)) return 'a promise';
  try {
    return inspect(value, { depth: 0, breakLength: Number.POSITIVE_INFINITY, maxStringLength: 80 });
  } catch {
    return 'a value that throws when it is looked at';
  }
}
