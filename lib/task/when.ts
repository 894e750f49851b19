// The when option: which responses a task runs after.

import type { Check } from '../options.js';

/** How a response ended. */
export interface ResponseOutcome {
  statusCode: number;
  /** True if the whole response was handed to its socket, whatever happened afterwards. False if the client left before that. */
  completed: boolean;
  /** What broke the connection, if it broke with an error. */
  error?: Error;
}

/**
 * Which responses a task runs after: `'always'` for every response, `'success'` for those that completed with a status under
 * 400, or a function that is called once the response is over and returns true or false.
 */
export type RunWhen = 'always' | 'success' | ((outcome: ResponseOutcome) => boolean);

/** Undefined if the task runs after every response. */
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
