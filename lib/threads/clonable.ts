// What can cross between threads, and what cannot.

import { types } from 'node:util';
import { inspectShort, isError, isObject } from '../foreign-value.js';

/** How many parts are looked at. So many characters or bytes count as one: a small Buffer is a view of a pool of up to 64 kB. */
const mostParts = 64;
const partLength = 2048;

/** Whether a value is small, plain and can be cloned for sure. That is known sooner than a message of its own is sent. */
export function isSurelyClonable(value: unknown): boolean {
  return lookAt(value, mostParts) >= 0;
}

/** Returns how many more parts may be looked at, or less than 0 if this one is not plain or there are too many. */
function lookAt(value: unknown, left: number): number {
  if (typeof value === 'string') return left - 1 - value.length / partLength;
  if (!isObject(value)) return typeof value === 'symbol' ? -1 : left - 1;
  if (ArrayBuffer.isView(value)) return value.byteLength > 0 ? left - 1 - copiedBytes(value.buffer) / partLength : -1; // It may be detached.
  if (types.isProxy(value) || types.isModuleNamespaceObject(value) || !isPlain(value)) return -1;
  return lookAtProperties(value, left - 1);
}

function lookAtProperties(value: object, left: number): number {
  if (Array.isArray(value) && value.length > left) return -1; // To list its keys would take long.
  const keys = Object.keys(value);
  if (keys.length > left) return -1;
  let rest = left;
  for (const key of keys) {
    const property = Object.getOwnPropertyDescriptor(value, key);
    if (rest < 0 || property?.get !== undefined) return -1;
    rest = lookAt(property?.value, rest);
  }
  return rest;
}

/** The whole buffer is cloned, however small the view of it is. What is shared is not copied. */
function copiedBytes(buffer: ArrayBufferLike): number {
  return buffer instanceof ArrayBuffer ? buffer.byteLength : 0;
}

function isPlain(value: object): boolean {
  const prototype: unknown = Object.getPrototypeOf(value);
  return prototype === Object.prototype || prototype === Array.prototype || prototype === null;
}

/** How deep it is looked for the reason, in levels. */
const deepest = 100;

/** A sentence about the innermost part that has no structured clone, such as `args[0].done is [Function: done], which …`. */
export function whyUnclonable(value: unknown, name: string): string | undefined {
  const seen = new Set<unknown>();
  let path = name;
  let part = value;
  let error = cloneError(part);
  if (error === undefined) return undefined;
  const tooDeep = `${name} is nested too deeply to be cloned`;
  if (isError(error.cause) && error.cause.name === 'RangeError') return tooDeep;
  while (seen.size < deepest) {
    seen.add(part);
    const inner = firstUnclonable(part, seen);
    if (inner === undefined) return describe(path, part, error.cause);
    path += inner.accessor;
    part = inner.value;
    error = inner.error;
  }
  return tooDeep;
}

interface Unclonable {
  readonly accessor: string;
  readonly value: unknown;
  readonly error: { readonly cause: unknown };
}

function firstUnclonable(value: unknown, seen: ReadonlySet<unknown>): Unclonable | undefined {
  for (const [accessor, read] of partsOf(value)) {
    try {
      const part = read();
      const error = seen.has(part) ? undefined : cloneError(part);
      if (error !== undefined) return { accessor, value: part, error };
    } catch (cause) {
      return { accessor, value: undefined, error: { cause } };
    }
  }
  return undefined;
}

/** What a structured clone looks at. Anything else is taken as a whole. */
function* partsOf(value: unknown): Generator<[accessor: string, read: () => unknown], void, void> {
  if (types.isMap(value)) {
    for (const [key, element] of value) {
      yield [`.keys(${inspectShort(key)})`, () => key];
      yield [`.get(${inspectShort(key)})`, () => element];
    }
  } else if (types.isSet(value)) {
    for (const element of value) yield ['.values()', () => element];
  } else if (typeof value === 'object' && value !== null && !types.isProxy(value) && !isError(value)) {
    for (const key of Object.keys(value)) {
      yield [accessorOf(value, key), () => Reflect.get(value, key)];
    }
  }
}

function accessorOf(value: object, key: string): string {
  if (Array.isArray(value)) return `[${key}]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}

export function cloneError(value: unknown): { readonly cause: unknown } | undefined {
  if (!isObject(value) && typeof value !== 'symbol') return undefined;
  try {
    structuredClone(value);
    return undefined;
  } catch (cause) {
    return { cause };
  }
}

function describe(path: string, part: unknown, cause: unknown): string {
  // Of what throws when it is read there is no part. What has to be transferred is no DataCloneError.
  const isThere = part !== undefined || (isError(cause) && cause.name === 'DataCloneError');
  return isThere ? `${path} is ${inspectShort(part)}, which cannot be cloned` : `${path} throws when it is read`;
}
