// The backoff between the attempts of one task: how long to wait, nothing about who waits.

/** How a failed attempt is tried again. */
export interface RetryOptions {
  /** How many attempts may follow the first one. */
  limit: number;
  /** Delay before the first retry, in ms. Default 1000. */
  minDelay?: number | undefined;
  /** The delay grows no further than this, in ms. Default 30000, or `minDelay` where that is more. */
  maxDelay?: number | undefined;
  /** Each delay is the one before times this. Default 2. */
  factor?: number | undefined;
  /**
   * Draws each delay between half and the whole of its value, so that tasks which failed together are not tried again
   * together ("equal jitter", as pg-boss and BullMQ have it). Default true.
   */
  jitter?: boolean | undefined;
}

export type Backoff = { readonly [Name in keyof RetryOptions]-?: NonNullable<RetryOptions[Name]> };

/** The delay in ms before retry number `retry`, which counts from 1. */
export function retryDelay(retry: number, { minDelay, maxDelay, factor, jitter }: Backoff): number {
  const growth = Math.min(factor ** (retry - 1), Number.MAX_VALUE); // 0 * Infinity is no number.
  const delay = Math.min(maxDelay, minDelay * growth);
  return jitter ? delay * (0.5 + Math.random() / 2) : delay;
}
