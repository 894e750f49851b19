// The answer of "when", which is the user's code: it may throw, or return something else than true or false.

import { BackgroundTasksError } from '../errors.js';
import { ignore, isAwaitable } from '../foreign-value.js';
import type { Call } from '../task/call.js';
import type { Scope } from '../task/scope.js';
import type { Condition, ResponseOutcome } from '../task/when.js';

export type Answer = { readonly isWanted: boolean } | { readonly error: unknown };

export const wanted: Answer = { isWanted: true };

/** Asks in the context of the task's `add`, since this code runs in that of whatever came before. */
export function ask(
  when: NonNullable<Condition>,
  outcome: ResponseOutcome | undefined,
  call: Call,
  outside: Scope,
): Answer {
  try {
    const answer: unknown = outcome !== undefined && call.outside(outside, () => when({ ...outcome }));
    if (!isAwaitable(answer)) return { isWanted: Boolean(answer) };
    void ignore(answer);
    const message = '"when" must return true or false: it cannot be asynchronous';
    return { error: new BackgroundTasksError('ERR_INVALID_OPTION', message) };
  } catch (error) {
    return { error };
  }
}
