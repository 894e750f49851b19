// What a subscriber of a tracing channel may put around a call: a store that is to be active within it, say.

import { inspectShort } from '../foreign-value.js';

/** Calls the function at once. */
export type Wrap = (fn: () => unknown) => unknown;

/**
 * Calls the function within `wrap`, exactly once, and returns or throws what the function does: a subscriber that fails, that
 * does not call it or that calls it twice makes no difference to it.
 */
export function callWithin<R>(wrap: Wrap | undefined, fn: () => R): R {
  if (wrap === undefined) return fn();
  let outcome: { isError: false; value: R } | { isError: true; value: unknown } | undefined;
  const once = (): R => {
    outcome ??= outcomeOf(fn);
    if (outcome.isError) throw outcome.value;
    return outcome.value;
  };
  try {
    wrap(once);
  } catch (error) {
    if (outcome?.isError !== true || outcome.value !== error) warn(error);
  }
  return once();
}

function outcomeOf<R>(fn: () => R): { isError: false; value: R } | { isError: true; value: unknown } {
  try {
    return { isError: false, value: fn() };
  } catch (value) {
    return { isError: true, value };
  }
}

function warn(error: unknown): void {
  const what = `a subscriber of a tracing channel has set a "wrap" that failed: ${inspectShort(error)}`;
  process.emitWarning(what, 'BackgroundTasksWarning');
}
