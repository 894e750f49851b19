// How a value is named in a message: short, and whatever the value is.

import { inspect, types } from 'node:util';

export function show(value: unknown): string {
  // Node 20 hangs the stores of every AsyncLocalStorage on a promise, and inspect() prints them.
  if (types.isPromise(value)) return 'a promise';
  try {
    return inspect(value, { depth: 0, breakLength: Number.POSITIVE_INFINITY, maxStringLength: 80 });
  } catch {
    return 'a value that throws when it is looked at';
  }
}
