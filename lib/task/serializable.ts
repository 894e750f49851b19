// What the type of enqueue() takes: JSON. What only the running program can tell, engine/serialize.ts refuses.

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
