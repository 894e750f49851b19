// What JSON would change on its way to a worker is refused before it leaves.

import { randomUUID } from 'node:crypto';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isError, isObject } from '../foreign-value.js';

/**
 * The arguments as JSON: an array. Trailing arguments that are `undefined` are left out, as if they had not been passed.
 *
 * @throws BackgroundTasksError `ERR_TASK_NOT_SERIALIZABLE`, with the path of the first value that would not survive the
 * round trip: functions, symbols, BigInt, cycles, `undefined` in arrays, NaN and infinities, class instances, what has a
 * `toJSON`, and arrays with properties of their own. Also for what throws when it is read, and for arguments that are too
 * large for one string; both with the cause.
 */
export function serializeArguments(args: readonly unknown[], task: string): string {
  const copy = copyArguments(args, task);
  try {
    const json = JSON.stringify(copy);
    return json.includes(minusZero) ? json.replaceAll(`"${minusZero}"`, '-0.0') : json;
  } catch (cause) {
    throw refusal(task, `args cannot be written as JSON: ${serializeError(cause).message}`, { cause });
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

/** In characters. A stack may hold whatever a task has put into its message. */
const longestStack = 16_000;

/** What is kept of the error of a task that failed. */
export function serializeError(error: unknown): { name: string; message: string; stack?: string } {
  try {
    if (error instanceof Error || isError(error)) {
      return { name: String(error.name), message: String(error.message), ...stackOf(error) };
    }
    return isObject(error) ? serializeObject(error) : { name: 'Error', message: String(error) };
  } catch {
    return { name: 'Error', message: 'a value that throws when it is looked at' };
  }
}

/** Whoever may ask for the state of a task sees the message: it has nothing of what else was thrown. */
function serializeObject(error: Partial<Error>): { name: string; message: string; stack: string } {
  const stack = inspectShort(error).slice(0, longestStack);
  const { name, message } = error;
  if (typeof message === 'string') return { name: typeof name === 'string' ? name : 'Error', message, stack };
  return {
    name: 'Error',
    message: `${typeof error === 'function' ? 'a function' : 'an object'} that is no Error`,
    stack,
  };
}

/** V8 writes it when it is read, and throws where the message is a symbol. */
function stackOf(error: Error): { stack?: string } {
  try {
    return typeof error.stack === 'string' ? { stack: error.stack.slice(0, longestStack) } : {};
  } catch {
    return {};
  }
}

class NotSerializable extends Error {
  /** The property that is the reason, where the value itself is not. */
  readonly key: PropertyKey | undefined;

  constructor(reason: string, key?: PropertyKey) {
    super(reason);
    this.key = key;
  }
}

/** JSON has -0, which JSON.stringify writes as 0: a text that nobody else can know stands for it in the copy. */
const minusZero = randomUUID();

/** In levels. JSON.stringify takes a little more before its stack overflows. */
const deepest = 4000;

function refusal(task: string, reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${reason}`, options);
}

/**
 * Checks and copies at once: a getter or a Proxy may return something else the next time, so each property is read only here.
 * Not recursive, since the stack would overflow earlier than that of JSON.stringify.
 */
function copyArguments(args: readonly unknown[], task: string): unknown[] {
  const root = new ListCopy(args, args.findLastIndex((value) => value !== undefined) + 1);
  const path: Copy[] = [root];
  try {
    copyAll(path);
    return root.copy;
  } catch (error) {
    const place = `args${path.map(({ key }) => accessor(key)).join('')}`;
    if (error instanceof NotSerializable) {
      throw refusal(task, `${place}${error.key === undefined ? '' : accessor(error.key)} ${error.message}`);
    }
    if (path.length > deepest) throw refusal(task, 'args: nested too deeply', { cause: error });
    throw refusal(task, `${place} throws when it is read`, { cause: error });
  }
}

/** The path leads from the arguments to what is being copied; in the end it is empty. */
function copyAll(path: Copy[]): void {
  const ancestors = new Set(path.map(({ source }) => source));
  for (let current = path.at(-1); current !== undefined; current = path.at(-1)) {
    const inner = current.untilObject();
    if (inner === undefined) {
      path.pop();
      ancestors.delete(current.source);
    } else {
      if (ancestors.has(inner)) throw new NotSerializable('holds itself');
      if (path.length > deepest) throw new RangeError(`more than ${deepest} levels`);
      checkPlain(inner);
      const next = Array.isArray(inner) ? new ListCopy(inner, inner.length) : new RecordCopy(inner);
      current.put(next.copy);
      path.push(next);
      ancestors.add(inner);
    }
  }
}

/** An array or an object that is being copied. */
interface Copy {
  readonly source: object;
  readonly copy: object;
  /** What was read last. */
  readonly key: string | number;
  /** Copies up to the next object in it, and returns that; undefined at the end. */
  untilObject(): object | undefined;
  /** In place of the object that was returned last. */
  put(copy: object): void;
}

class ListCopy implements Copy {
  readonly source: readonly unknown[];
  readonly copy: unknown[] = [];
  readonly #length: number;
  key = -1;

  constructor(source: readonly unknown[], length: number) {
    this.source = source;
    this.#length = length;
  }

  /** By index: an iteration would pass over a hole, which JSON turns into null. */
  untilObject(): object | undefined {
    while (++this.key < this.#length) {
      const element = this.source[this.key];
      if (holdsMore(element)) return element;
      this.copy.push(Object.is(element, -0) ? minusZero : element);
    }
    return undefined;
  }

  put(copy: object): void {
    this.copy.push(copy);
  }
}

class RecordCopy implements Copy {
  readonly source: object;
  readonly copy: Record<string, unknown> = {};
  readonly #names: Iterator<string>;
  key = '';

  constructor(source: object) {
    this.source = source;
    this.#names = Object.keys(source).values();
  }

  untilObject(): object | undefined {
    for (let name = this.#names.next(); !name.done; name = this.#names.next()) {
      this.key = name.value;
      const property: unknown = Reflect.get(this.source, this.key);
      // JSON leaves it out, and reading what is not there gives undefined again.
      if (property === undefined) continue;
      if (holdsMore(property)) return property;
      this.put(Object.is(property, -0) ? minusZero : property);
    }
    return undefined;
  }

  put(value: unknown): void {
    // Assigned, it would become the prototype.
    if (this.key === '__proto__') Object.defineProperty(this.copy, this.key, { value, enumerable: true });
    else this.copy[this.key] = value;
  }
}

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

function checkPlain(value: object): void {
  const prototype: object | null = Object.getPrototypeOf(value);
  if (prototype !== null && !isPlain(value, prototype)) {
    const kind = Array.isArray(value) ? 'array' : 'object';
    throw new NotSerializable(`is an instance of ${className(prototype)}, not a plain ${kind}`);
  }
  // JSON.stringify calls it, also where it is not enumerable.
  if (typeof Reflect.get(value, 'toJSON') === 'function') throw new NotSerializable('is a function', 'toJSON');
  const symbol = Object.getOwnPropertySymbols(value).find((key) =>
    Object.prototype.propertyIsEnumerable.call(value, key),
  );
  if (symbol !== undefined) throw new NotSerializable('has a symbol for a key', symbol);
  const property = Array.isArray(value) ? Object.keys(value)[value.length] : undefined; // The elements come first.
  if (property !== undefined) throw new NotSerializable('is a property of an array, which JSON leaves out', property);
}

/** Another realm (vm, Jest) has other prototypes: its Array.prototype is an array too, its Object.prototype has none either. */
function isPlain(value: object, prototype: object): boolean {
  return Array.isArray(value) ? Array.isArray(prototype) : Object.getPrototypeOf(prototype) === null;
}

function className(prototype: object): string {
  return typeof prototype.constructor === 'function' ? prototype.constructor.name : 'a class';
}

function accessor(key: PropertyKey): string {
  if (typeof key !== 'string') return `[${String(key)}]`;
  return /^[A-Za-z_$][\w$]*$/.test(key) ? `.${key}` : `[${JSON.stringify(key)}]`;
}
