// A time slice: how long tasks go on before the event loop gets its turn.

import { monotonicTime } from './clock.js';

/** In ms. */
const duration = 5;

/** A clock that shows the same time this often has been frozen by a test, perhaps before this library was loaded. */
const mostLooks = 100;

export class TimeSlice {
  #end = 0;
  #lastTime = 0;
  /** How many times in a row the clock has shown the same time. */
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
