// What a call returned: something to await, or a plain value.

/**
 * Whatever may have a `then`. It is not looked at here, since looking can throw: `await` looks once, and turns what it
 * meets into a rejection. A plain object costs one microtask by it.
 */
export function isAwaitable(value: unknown): value is object {
  return typeof value === 'object' ? value !== null : typeof value === 'function';
}

/** For what was returned where nothing can be awaited: its rejection must not go unhandled. */
export async function ignore(awaitable: object): Promise<void> {
  try {
    await awaitable;
  } catch {
    // What is reported instead is that it was returned at all.
  }
}
