// An error on its way out of a thread. A structured clone of it would lose its class, its code, its other properties and what an
// AggregateError holds.

import { BackgroundTasksError, isMarkedNonRetryable, NonRetryableError } from '../errors.js';
import { inspectShort, isError } from '../foreign-value.js';
import { cloneError } from './clonable.js';

/** What was thrown, and the errors that it refers to, each by its place in the list: they may refer to each other. */
export interface ErrorBox {
  readonly thrown: Boxed;
  readonly errors: readonly BoxedError[];
}

/** An error by its place, or any other value as it is. */
type Boxed = { readonly error: number } | { readonly value: unknown };

interface BoxedError {
  readonly base: string;
  readonly name: string;
  readonly message: string;
  readonly stack: string;
  readonly cause: Boxed | undefined;
  /** Those of an AggregateError. */
  readonly errors: readonly Boxed[] | undefined;
  readonly properties: readonly (readonly [name: string, value: Boxed])[];
}

/** Beyond so many errors, which may be a chain without an end, the rest are texts. */
const mostErrors = 100;

/** Those that can be told apart on the other side. The most specific ones first. */
const classes: Readonly<Record<string, { readonly prototype: Error }>> = {
  NonRetryableError,
  BackgroundTasksError,
  AggregateError,
  EvalError,
  RangeError,
  ReferenceError,
  SyntaxError,
  TypeError,
  URIError,
};

/** Never throws, whatever was thrown. */
export function boxError(thrown: unknown): ErrorBox {
  try {
    return new Boxing().box(thrown);
  } catch {
    return { thrown: { value: 'a value that throws when it is looked at' }, errors: [] };
  }
}

class Boxing {
  readonly #places = new Map<unknown, number>();
  readonly #errors: BoxedError[] = [];

  box(thrown: unknown): ErrorBox {
    return { thrown: this.#boxed(thrown), errors: this.#errors };
  }

  #boxed(value: unknown): Boxed {
    const known = this.#places.get(value);
    if (known !== undefined) return { error: known };
    if (!isError(value)) return { value: clonable(value) };
    const place = this.#places.size;
    if (place === mostErrors) return { value: inspectShort(value) };
    this.#places.set(value, place);
    this.#errors[place] = this.#describe(value);
    return { error: place };
  }

  #describe(error: Error): BoxedError {
    const errors = read(error, 'errors');
    const own = ownNames(error).filter((name) => !special.has(name) && !(name === 'errors' && Array.isArray(errors)));
    return {
      base: baseOf(error),
      name: text(error, 'name'),
      message: text(error, 'message'),
      stack: text(error, 'stack'),
      cause: has(error, 'cause') ? this.#boxed(read(error, 'cause')) : undefined,
      errors: Array.isArray(errors) ? errors.map((inner) => this.#boxed(inner)) : undefined,
      properties: own.map((name) => [name, this.#boxed(read(error, name))] as const),
    };
  }
}

const special = new Set(['name', 'message', 'stack', 'cause']);

/** The error that was boxed. Its errors may refer to each other in circles, so they are made first and filled afterwards. */
export function unboxError({ thrown, errors }: ErrorBox): unknown {
  const pairs = errors.map((boxed) => [boxed, makeError(boxed)] as const);
  const made = pairs.map(([, error]) => error);
  const unbox = (boxed: Boxed): unknown => ('error' in boxed ? made[boxed.error] : boxed.value);
  for (const [{ cause, errors: inner, properties }, error] of pairs) {
    if (cause !== undefined) hide(error, 'cause', unbox(cause));
    if (inner !== undefined) hide(error, 'errors', inner.map(unbox));
    for (const [name, value] of properties) {
      Object.defineProperty(error, name, { value: unbox(value), writable: true, enumerable: true, configurable: true });
    }
  }
  return unbox(thrown);
}

function makeError({ base, name, message, stack }: BoxedError): Error {
  if (base === 'DOMException') {
    const error = new DOMException(message, name);
    hide(error, 'stack', stack);
    return error;
  }
  const error = new Error(message);
  const known = classes[base];
  if (known !== undefined) Object.setPrototypeOf(error, known.prototype);
  if (error.name !== name) hide(error, 'name', name);
  hide(error, 'stack', stack);
  return error;
}

/** As the properties of an error are that its constructor sets. */
function hide(error: Error, name: string, value: unknown): void {
  Object.defineProperty(error, name, { value, writable: true, enumerable: false, configurable: true });
}

function baseOf(error: Error): string {
  try {
    if (error instanceof DOMException) return 'DOMException';
    // By the mark: the task may have the class of another copy of this package.
    if (isMarkedNonRetryable(error)) return 'NonRetryableError';
    return Object.entries(classes).find(([, { prototype }]) => isBasedOn(error, prototype))?.[0] ?? 'Error';
  } catch {
    return 'Error';
  }
}

function isBasedOn(error: Error, prototype: object): boolean {
  return Object.prototype.isPrototypeOf.call(prototype, error);
}

function clonable(value: unknown): unknown {
  return cloneError(value) === undefined ? value : inspectShort(value);
}

function ownNames(error: object): string[] {
  try {
    return Object.keys(error);
  } catch {
    return [];
  }
}

function has(error: object, name: string): boolean {
  try {
    return name in error;
  } catch {
    return false;
  }
}

function read(error: object, name: string): unknown {
  try {
    return Reflect.get(error, name);
  } catch {
    return undefined;
  }
}

function text(error: object, name: string): string {
  const value = read(error, name);
  if (typeof value === 'string') return value;
  return value === undefined ? '' : inspectShort(value);
}
