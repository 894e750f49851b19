// What enqueue() takes, as a type: JSON. Whatever can be told only at run time is checked in engine/serialize.ts.

import type { RemoteTask, Task } from './task.js';
import type { AnyFunction } from './types.js';

/** The type of every `enqueue`. */
export type Enqueue = <A extends readonly unknown[]>(
  task: Task<A> | RemoteTask<A>,
  ...args: SerializableArguments<A>
) => Promise<{ id: string }>;

/**
 * The arguments of a task, each checked as {@link Serializable} does. Optional ones may be `undefined`.
 *
 * A function around `enqueue` can pass its arguments on: where `A` is generic, its constraint is checked. If that function
 * declares its parameters with this type, its callers are checked too. If it declares them as `A`, they are checked at run time.
 *
 * @example
 * function enqueueTwice<A extends readonly unknown[]>(task: Task<A>, ...args: SerializableArguments<A>) {
 *   return Promise.all([enqueue(task, ...args), enqueue(task, ...args)]);
 * }
 */
export type SerializableArguments<A extends readonly unknown[]> = { generic: A; known: SerializableList<A> }[KindOf<A>];

/** Picks a property: TypeScript assigns to `T[K]` what fits the constraint of K, but hardly anything to a conditional type. */
type KindOf<A extends readonly unknown[]> =
  A extends SerializableList<A>
    ? number extends A['length'] // A tuple is known. The constraint of a type parameter is usually an array.
      ? 'generic'
      : 'known'
    : 'known';

/** T, if it survives JSON. Any part that does not becomes a sentence that says what to pass instead. */
export type Serializable<T> = unknown extends T ? T : Refused<T>;

type Refused<T> = T extends Json
  ? T
  : T extends AnyFunction
    ? 'a function is not JSON: pass the data that it needs, and call it in the task'
    : T extends bigint
      ? 'a bigint is not JSON: take a string, and pass bigint.toString()'
      : T extends symbol
        ? 'a symbol is not JSON: take a string'
        : T extends undefined
          ? 'undefined is not JSON: pass null'
          : T extends readonly unknown[]
            ? SerializableList<T>
            : T extends object
              ? SerializableObject<T>
              : T;

type Json = string | number | boolean | null | readonly Json[] | { readonly [name: string]: Json | undefined };

type SerializableList<T extends readonly unknown[]> = {
  [K in keyof T]: IsOptional<T, K> extends true
    ? Serializable<Exclude<T[K], undefined>> | Extract<T[K], undefined>
    : Serializable<T[K]>;
};

/** Whether a property, or an element of a tuple, may be left out. Elements of an array do not count as optional. */
type IsOptional<T, K extends keyof T> = number extends K
  ? false
  : Record<never, never> extends Pick<T, K>
    ? true
    : false;

type SerializableObject<T extends object> = T extends Date
  ? 'a Date is not JSON: take a string, and pass date.toISOString()'
  : T extends ReadonlyMap<unknown, unknown>
    ? 'a Map is not JSON: take an array, and pass [...map]'
    : T extends ReadonlySet<unknown>
      ? 'a Set is not JSON: take an array, and pass [...set]'
      : T extends PromiseLike<unknown>
        ? 'a promise is not JSON: await it, and pass its value'
        : T extends ArrayBufferView | ArrayBuffer
          ? 'bytes are not JSON: take a string, and pass Buffer.from(bytes).toString("base64")'
          : IsPlain<T> extends true
            ? // JSON leaves out a property that is undefined.
              { [K in keyof T]: Serializable<Exclude<T[K], undefined>> | Extract<T[K], undefined> }
            : 'an object with methods or private fields is not JSON: pass a plain object with its data';

/** Whether a copy of the object has the same type: a copy is no instance of a class with private fields. */
type IsPlain<T> = [MethodOf<T>] extends [never] ? ({ [K in keyof T]: T[K] } extends T ? true : false) : false;

type MethodOf<T> = {
  [K in keyof T]-?: unknown extends T[K]
    ? never
    : T[K] extends AnyFunction
      ? IsOptional<T, K> extends true
        ? never
        : K
      : never;
}[keyof T];
