// Whether a worker looks for tasks: judged by when its store last answered, and not by what its tasks do.

import { monotonicTime, wallClockTime } from '../clock.js';
import type { WorkerHealth } from './engine.js';
import { serializeError } from './serialize.js';

/** A worker looks every few seconds at least; after so many ms without an answer it is not healthy. */
const patience = 10_000;

export class Health {
  #polledAt = monotonicTime();
  #lastPollAt = new Date(wallClockTime());
  #failure: unknown = undefined;

  polled(): void {
    this.#polledAt = monotonicTime();
    this.#lastPollAt = new Date(wallClockTime());
    this.#failure = undefined;
  }

  failed(error: unknown): void {
    this.#failure = error;
  }

  report(running: number, isClosed: boolean): WorkerHealth {
    const reason = this.#reason(isClosed);
    return { healthy: reason === undefined, running, lastPollAt: this.#lastPollAt, ...(reason && { reason }) };
  }

  #reason(isClosed: boolean): string | undefined {
    if (isClosed) return 'the worker is closed';
    const silence = monotonicTime() - this.#polledAt;
    if (silence <= patience) return undefined;
    const since = `for ${Math.round(silence / 1000)} seconds`;
    return this.#failure === undefined
      ? `the worker has not looked for tasks ${since}`
      : `the store has not answered ${since}: ${serializeError(this.#failure).message}`;
  }
}
