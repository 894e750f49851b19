// How options are checked: invalid and unknown ones are refused by the call that they are passed to. Which options there are, and
// which values each takes, is defined beside the code that uses them.

import { BackgroundTasksError } from './errors.js';
import { inspectShort } from './foreign-value.js';

/** Returns what was expected, or undefined if the value is valid. */
export type Check = (value: unknown) => string | undefined;
export type Checks<Options> = Record<keyof Options, Check>;

/** In ms. For a longer delay setTimeout() fires at once. */
export const longestDelay = 2 ** 31 - 1;

export const isFunction: Check = (value) => (typeof value === 'function' ? undefined : 'a function');
export const isBoolean: Check = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
export const isCount: Check = (value) => (isInteger(value) && value >= 0 ? undefined : 'a whole number from 0');
export const isLimit: Check = (value) =>
  value === Number.POSITIVE_INFINITY || (isInteger(value) && value >= 1)
    ? undefined
    : 'a whole number from 1, or Infinity';
export const isDelay: Check = (value) =>
  typeof value === 'number' && value >= 0 && value <= longestDelay
    ? undefined
    : `milliseconds, from 0 to ${longestDelay}`;
export const isTimeout: Check = (value) =>
  value === Number.POSITIVE_INFINITY || (value !== 0 && isDelay(value) === undefined)
    ? undefined
    : `milliseconds, more than 0 and at most ${longestDelay}, or Infinity`;
export const isTimeoutOrZero: Check = (value) => (value === 0 ? undefined : isTimeout(value));
export const isText: Check = (value) =>
  typeof value === 'string' && value !== '' ? undefined : 'a string that is not empty';

function isInteger(value: unknown): value is number {
  return Number.isInteger(value);
}

/** Copies the options that are present. One that is present as `undefined` stands for the default, also over another value. */
export function copyOptions<Options extends object>(options: Options, checks: Checks<Options>): Options {
  const names = Object.keys(checks).filter((name) => name in options);
  return Object.fromEntries(names.map((name) => [name, options[name as keyof Options]])) as Options;
}

/** `undefined` stands for the default, as in a destructuring pattern. */
export function checkOptions<Options extends object>(of: string, options: Options, checks: Checks<Options>): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      `${of}: the options must be an object, not ${inspectShort(options)}`,
    );
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(checks, name)) continue;
    const known = Object.keys(checks).sort().join(', ');
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `${of}: unknown option "${name}"; there are ${known}`);
  }
  // Looks for each known name, since options may be inherited.
  for (const [name, check] of Object.entries<Check>(checks)) {
    const value = options[name as keyof Options];
    const expected = value === undefined ? undefined : check(value);
    if (expected !== undefined) {
      throw new BackgroundTasksError(
        'ERR_INVALID_OPTION',
        `${of}: "${name}" must be ${expected}, not ${inspectShort(value)}`,
      );
    }
  }
}
