// The retries option, and how long to wait between the attempts of one task.

import { type Check, type Checks, checkOptions, isBoolean, isCount, isDelay, longestDelay } from '../options.js';

/** How a failed attempt is tried again. */
export interface RetryOptions {
  /** How many attempts may follow the first one. */
  limit: number;
  /** Delay before the first retry, in ms. Default 1000. */
  minDelay?: number | undefined;
  /** The longest delay, in ms. Default 30000, or `minDelay` if that is more. */
  maxDelay?: number | undefined;
  /** Each delay is the previous one multiplied by this. Default 2. */
  factor?: number | undefined;
  /**
   * Picks each delay at random between half and all of its value, so that tasks which failed together are not tried again
   * together ("equal jitter", as in pg-boss and BullMQ). Default true.
   */
  jitter?: boolean | undefined;
}

export type Backoff = { readonly [Name in keyof RetryOptions]-?: NonNullable<RetryOptions[Name]> };

/** The delay in ms before retry number `retry`, which counts from 1. */
export function retryDelay(retry: number, { minDelay, maxDelay, factor, jitter }: Backoff): number {
  const growth = Math.min(factor ** (retry - 1), Number.MAX_VALUE); // 0 * Infinity is NaN.
  const delay = Math.min(maxDelay, minDelay * growth);
  return jitter ? delay * (0.5 + Math.random() / 2) : delay;
}

/** Undefined if there is only one attempt. */
export function readRetries(retries: number | RetryOptions): Backoff | undefined {
  const given: RetryOptions = typeof retries === 'number' ? { limit: retries } : retries;
  const { limit, minDelay = 1000, maxDelay = Math.max(30_000, minDelay), factor = 2, jitter = true } = given;
  return limit === 0 ? undefined : { limit, minDelay, maxDelay, factor, jitter };
}

export const isRetries: Check = (value) => {
  if (isCount(value) === undefined) return undefined;
  if (typeof value !== 'object' || value === null) return 'a whole number from 0, or { limit, … }';
  checkOptions('retries', value, retryChecks);
  const { limit, minDelay = 0, maxDelay = longestDelay } = value as RetryOptions;
  if (limit === undefined) return 'a whole number from 0, or { limit, … }';
  return minDelay > maxDelay ? 'a minDelay that is not over maxDelay' : undefined;
};

export const retryChecks: Checks<RetryOptions> = {
  limit: isCount,
  minDelay: isDelay,
  maxDelay: isDelay,
  factor: (value) =>
    typeof value === 'number' && value >= 1 && value < Number.POSITIVE_INFINITY ? undefined : 'a number from 1',
  jitter: isBoolean,
};
