// A time slice: how long tasks go on before the event loop gets its turn.

import { monotonicTime } from './clock.js';

/** In ms. */
const duration = 5;

/** A clock that shows the same time so often stands still: a test has frozen it, perhaps before this library was loaded. */
const mostLooks = 100;

export class TimeSlice {
  #end = 0;
  #lastTime = 0;
  /** How often the clock has shown the last time again. */
  #looks = 0;

  begin(): void {
    this.#lastTime = monotonicTime();
    this.#end = this.#lastTime + duration;
    this.#looks = 0;
  }

  isOver(): boolean {
    const time = monotonicTime();
    this.#looks = time === this.#lastTime ? this.#looks + 1 : 0;
    this.#lastTime = time;
    return time >= this.#end || this.#looks >= mostLooks;
  }
}
