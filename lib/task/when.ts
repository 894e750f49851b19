// The when option: which responses a task runs after.

import type { Check } from '../options.js';

/** How a response ended. */
export interface ResponseOutcome {
  statusCode: number;
  /** The whole response was handed to its socket, whatever became of that afterwards. False when the client left before. */
  completed: boolean;
  /** What broke the connection, where it broke with an error. */
  error?: Error;
}

/**
 * Which responses a task runs after: every one; those that completed with a status under 400; or those for which a
 * function, called once the response is over, returns true.
 */
export type RunWhen = 'always' | 'success' | ((outcome: ResponseOutcome) => boolean);

/** Undefined: after every one. */
export type Condition = ((outcome: ResponseOutcome) => boolean) | undefined;

export function readWhen(when: RunWhen): Condition {
  if (when === 'always') return undefined;
  return when === 'success' ? isSuccess : when;
}

export const isWhen: Check = (value) =>
  value === 'always' || value === 'success' || typeof value === 'function'
    ? undefined
    : "'always', 'success' or a function";

function isSuccess({ completed, statusCode }: ResponseOutcome): boolean {
  return completed && statusCode < 400;
}
