// What JSON would change on its way to a worker is refused before it leaves.

import { inspect } from 'node:util';
import { BackgroundTasksError } from '../errors.js';
import { isError } from '../foreign-value.js';

/**
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE`, with the path of the first value that would not survive the
 * round trip: functions, symbols, BigInt, cycles, `undefined` in arrays, NaN and infinities, class instances, what has a
 * `toJSON`, and arrays with properties of their own; also with that of what throws when it is read, and the cause.
 */
export function checkSerializable(args: readonly unknown[], task: string): void {
  const path: PropertyKey[] = [];
  try {
    checkObject(args, path, new Set());
  } catch (error) {
    // So deep that the stack may be too small for it, in whose last frames anything may fail.
    if (error instanceof RangeError && path.length > 1000) {
      throw refusal(task, 'args: nested too deeply', { cause: error });
    }
    const place = `args${path.map(accessor).join('')}`;
    if (error instanceof NotSerializable) throw refusal(task, `${place} ${error.message}`);
    throw refusal(task, `${place} throws when it is read`, { cause: error });
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

/** In levels. JSON.stringify takes a little more before its stack overflows. */
const deepest = 4000;

function refusal(task: string, reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${reason}`, options);
}

/** Where it throws, the path leads to the place. */
function checkObject(value: object, path: PropertyKey[], ancestors: Set<object>): void {
  if (ancestors.has(value)) throw new NotSerializable('holds itself');
  if (path.length > deepest) throw new RangeError('nested too deeply');
  ancestors.add(value);
  checkPlain(value, path);
  if (Array.isArray(value)) {
    // By index: forEach would pass over a hole, which JSON turns into null.
    for (let index = 0; index < value.length; index++) {
      path.push(index);
      const element: unknown = value[index];
      if (holdsMore(element)) checkObject(element, path, ancestors);
      path.pop();
    }
  } else {
    for (const name of Object.keys(value)) {
      path.push(name);
      const property: unknown = Reflect.get(value, name);
      // JSON leaves it out, and reading what is not there gives undefined again.
      if (property !== undefined && holdsMore(property)) checkObject(property, path, ancestors);
      path.pop();
    }
  }
  ancestors.delete(value);
}

/** Apart from the descent: with one call a level the stack is enough for what JSON.stringify can do. */
function holdsMore(value: unknown): value is object {
  switch (typeof value) {
    case 'string':
    case 'boolean':
      return false;
    case 'number':
      if (!Number.isFinite(value)) throw new NotSerializable(`is ${value}, which JSON turns into null`);
      return false;
    case 'object':
      return value !== null;
    default:
      throw new NotSerializable(`is ${value === undefined ? 'undefined' : `a ${typeof value}`}`);
  }
}

function checkPlain(value: object, path: PropertyKey[]): void {
  const prototype: object | null = Object.getPrototypeOf(value);
  if (prototype !== null && !isPlain(value, prototype)) {
    const kind = Array.isArray(value) ? 'array' : 'object';
    throw new NotSerializable(`is an instance of ${className(prototype)}, not a plain ${kind}`);
  }
  // JSON.stringify calls it, also where it is not enumerable.
  if (typeof Reflect.get(value, 'toJSON') === 'function') throw at('toJSON', path, 'is a function');
  const symbol = Object.getOwnPropertySymbols(value).find((key) =>
    Object.prototype.propertyIsEnumerable.call(value, key),
  );
  if (symbol !== undefined) throw at(symbol, path, 'has a symbol for a key');
  const property = Array.isArray(value) ? Object.keys(value)[value.length] : undefined; // The elements come first.
  if (property !== undefined) throw at(property, path, 'is a property of an array, which JSON leaves out');
}

/** Another realm (vm, Jest) has other prototypes: its Array.prototype is an array too, its Object.prototype has none either. */
function isPlain(value: object, prototype: object): boolean {
  return Array.isArray(value) ? Array.isArray(prototype) : Object.getPrototypeOf(prototype) === null;
}

function at(key: PropertyKey, path: PropertyKey[], reason: string): NotSerializable {
  path.push(key);
  return new NotSerializable(reason);
}

function className(prototype: object): string {
  return typeof prototype.constructor === 'function' ? prototype.constructor.name : 'a class';
}

function accessor(key: PropertyKey): string {
  if (typeof key !== 'string') return `[${String(key)}]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}
