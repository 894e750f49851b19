// What JSON would change on its way to a worker is refused before it leaves.

import { inspect } from 'node:util';
import { BackgroundTasksError } from '../errors.js';
import { isError } from '../is-error.js';

type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json | undefined };

/**
 * A type that survives JSON, or `never` in the places of it that do not: functions, symbols, bigints, class instances
 * with methods (a Date, a Map), and `undefined` in arrays.
 */
export type Serializable<T> = T extends Json
  ? T
  : T extends bigint | symbol | undefined | ((...args: never[]) => unknown)
    ? never
    : T extends readonly unknown[]
      ? { [K in keyof T]: Serializable<T[K]> }
      : T extends object
        ? { [K in keyof T]: Serializable<Exclude<T[K], undefined>> | Extract<T[K], undefined> }
        : T;

/**
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE`, with the path of the first value that would not survive the
 * round trip: functions, symbols, BigInt, cycles, `undefined` in arrays, NaN and infinities, and class instances.
 */
export function checkSerializable(args: readonly unknown[], task: string): void {
  try {
    args.forEach((arg, index) => {
      check(arg, `args[${index}]`, new Set([args]));
    });
  } catch (error) {
    if (error instanceof NotSerializable) throw refusal(task, error.message);
    if (error instanceof RangeError) throw refusal(task, 'args: nested too deeply', { cause: error });
    throw error;
  }
}

/** A result as it can be stored: one that JSON cannot hold is not kept, since the task has succeeded all the same. */
export function serializeResult(value: unknown): string | undefined {
  try {
    return JSON.stringify(value);
  } catch {
    return undefined;
  }
}

/** What is kept of the error of a task that failed. */
export function serializeError(error: unknown): { name: string; message: string } {
  try {
    if (error instanceof Error || isError(error)) return { name: String(error.name), message: String(error.message) };
    return { name: 'Error', message: typeof error === 'string' ? error : inspect(error, { depth: 0 }) };
  } catch {
    return { name: 'Error', message: 'a value that throws when it is looked at' };
  }
}

class NotSerializable extends Error {}

function refusal(task: string, reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${reason}`, options);
}

function check(value: unknown, path: string, ancestors: Set<object>): void {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return;
    case 'number':
      if (!Number.isFinite(value)) throw new NotSerializable(`${path} is ${value}, which JSON turns into null`);
      return;
    case 'object':
      if (value !== null) checkObject(value, path, ancestors);
      return;
    default:
      throw new NotSerializable(`${path} is ${value === undefined ? 'undefined' : `a ${typeof value}`}`);
  }
}

function checkObject(value: object, path: string, ancestors: Set<object>): void {
  if (ancestors.has(value)) throw new NotSerializable(`${path} holds itself`);
  ancestors.add(value);
  if (Array.isArray(value)) {
    // By index: forEach would pass over a hole, which JSON turns into null.
    for (let index = 0; index < value.length; index++) check(value[index], `${path}[${index}]`, ancestors);
  } else {
    checkPlain(value, path);
    for (const [name, property] of Object.entries(value)) {
      // JSON leaves it out, and reading what is not there gives undefined again.
      if (property !== undefined) check(property, `${path}${accessor(name)}`, ancestors);
    }
  }
  ancestors.delete(value);
}

function checkPlain(value: object, path: string): void {
  const prototype: object | null = Object.getPrototypeOf(value);
  // A plain object of another realm (vm, Jest) has another Object.prototype, which has no prototype either.
  if (prototype !== null && Object.getPrototypeOf(prototype) !== null) {
    throw new NotSerializable(`${path} is an instance of ${className(prototype)}, not a plain object`);
  }
  const symbol = Object.getOwnPropertySymbols(value).find((key) =>
    Object.prototype.propertyIsEnumerable.call(value, key),
  );
  if (symbol !== undefined) throw new NotSerializable(`${path}[${String(symbol)}] has a symbol for a key`);
}

function className(prototype: object): string {
  return typeof prototype.constructor === 'function' ? prototype.constructor.name : 'a class';
}

function accessor(name: string): string {
  return /^[A-Za-z_$][\w$]*$/.test(name) ? `.${name}` : `[${JSON.stringify(name)}]`;
}
