// Tasks that run here and were cancelled elsewhere: the store is asked for its marks while anything runs.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout } from '../clock.js';
import { withDeadline } from './deadline.js';

/** Between two looks, in ms. A task is to know within 5 s. */
const interval = 2000;

/** An attempt that can be cancelled. */
interface Cancellable {
  readonly id: string;
  cancel(): void;
}

export class Cancellation {
  readonly #running: () => Iterable<Cancellable>;
  readonly #find: (ids: readonly string[]) => Promise<readonly string[]>;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isLooking = false;

  constructor(running: () => Iterable<Cancellable>, find: (ids: readonly string[]) => Promise<readonly string[]>) {
    this.#running = running;
    this.#find = find;
  }

  /** Called when an attempt is about to run. */
  begin(): void {
    this.#timer ??= setTimeout(this.look, interval).unref();
  }

  /** Called when nothing runs. */
  stop(): void {
    clearTimeout(this.#timer);
    this.#timer = undefined;
  }

  /** Cancels those that are marked. Never rejects: the next look will do while the store is away. */
  readonly look = AsyncResource.bind(async (): Promise<void> => {
    if (this.#isLooking) return;
    this.#isLooking = true;
    this.stop();
    const runs = new Map([...this.#running()].map((run) => [run.id, run]));
    try {
      const marked = await withDeadline(() => this.#find([...runs.keys()]));
      for (const id of marked) runs.get(id)?.cancel();
    } catch {}
    this.#isLooking = false;
    if ([...this.#running()].length > 0) this.begin();
  });
}
