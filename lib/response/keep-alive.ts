// The waitUntil option: keeps a serverless host up until the tasks of a response have ended.

import { nextTurn } from '../clock.js';

/** For one response. */
export class KeepAlive {
  readonly #waitUntil: (promise: Promise<void>) => unknown;
  readonly #runner: { readonly isClosed: boolean };
  /** How many tasks and reports have not ended. */
  #held = 0;
  /** Resolves the promise that the host waits for, while there is one. */
  #end: (() => void) | undefined = undefined;

  constructor(waitUntil: (promise: Promise<void>) => unknown, runner: { readonly isClosed: boolean }) {
    this.#waitUntil = waitUntil;
    this.#runner = runner;
  }

  /** Called when a task is added. `failed` gets what `waitUntil` throws or rejects with. */
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

  /** The end of the last task may be followed by an add, so it keeps the host for another turn, unless nothing can be added. */
  async release(): Promise<void> {
    this.#held--;
    if (this.#held > 0) return;
    await (this.#runner.isClosed ? undefined : nextTurn());
    if (this.#held > 0) return;
    this.#end?.();
    this.#end = undefined;
  }
}
