// Spreads calls that were made in one turn of the event loop over as many turns as they need. BullMQ takes a tenth of a
// millisecond to add a job, and an application may enqueue thousands at once.

import { nextTurn } from '../../clock.js';
import { TimeSlice } from '../../time-slice.js';

export class Turns {
  #waiting: (() => void)[] = [];
  #isGoing = false;

  /** Resolves when it is the caller's turn, first come, first served. */
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
        await undefined; // The caller goes on in microtasks, as this loop does.
        if (!slice.isOver()) continue;
        await nextTurn();
        slice.begin();
      }
    }
    this.#isGoing = false;
  }
}
