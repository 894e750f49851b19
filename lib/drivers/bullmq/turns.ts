// Spreads what was asked for in one turn of the event loop over as many as it takes: BullMQ needs a tenth of a millisecond of it
// for a job, and thousands may be enqueued at once.

import { nextTurn } from '../../clock.js';
import { TimeSlice } from '../../time-slice.js';

export class Turns {
  #waiting: (() => void)[] = [];
  #isGoing = false;

  /** Resolves when it is the caller's turn, first come, first served. What the caller does by then counts. */
  next(): Promise<void> {
    return new Promise((resolve) => {
      this.#waiting.push(resolve);
      if (!this.#isGoing) void this.#go();
    });
  }

  async #go(): Promise<void> {
    this.#isGoing = true;
    const slice = new TimeSlice();
    slice.begin();
    while (this.#waiting.length > 0) {
      const waiting = this.#waiting;
      this.#waiting = [];
      for (const begin of waiting) {
        begin();
        await undefined; // What it begins goes on in microtasks, as this does.
        if (!slice.isOver()) continue;
        await nextTurn();
        slice.begin();
      }
    }
    this.#isGoing = false;
  }
}
