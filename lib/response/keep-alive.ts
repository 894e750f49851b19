// The waitUntil option: it keeps a serverless host up until the tasks of a response have ended.

import { nextTurn } from '../clock.js';

/** Of one response. */
export class KeepAlive {
  readonly #waitUntil: (promise: Promise<void>) => unknown;
  readonly #runner: { readonly isClosed: boolean };
  /** Tasks and reports that are not over. */
  #held = 0;
  /** Resolves the promise that the host waits for, while there is one. */
  #end: (() => void) | undefined = undefined;

  constructor(waitUntil: (promise: Promise<void>) => unknown, runner: { readonly isClosed: boolean }) {
    this.#waitUntil = waitUntil;
    this.#runner = runner;
  }

  /** A task was added. `failed` is told what `waitUntil` throws or rejects with, if it is called. */
  async begin(failed: (error: unknown) => void): Promise<void> {
    this.hold();
    if (this.#end !== undefined) return;
    const promise = new Promise<void>((resolve) => {
      this.#end = resolve;
    });
    try {
      await this.#waitUntil(promise);
    } catch (error) {
      failed(error);
    }
  }

  hold(): void {
    this.#held++;
  }

  /** After the last one the host is kept for a turn, unless nothing can be added any more: its end may be followed by an add. */
  async release(): Promise<void> {
    this.#held--;
    if (this.#held > 0) return;
    await (this.#runner.isClosed ? undefined : nextTurn());
    if (this.#held > 0) return;
    this.#end?.();
    this.#end = undefined;
  }
}
