// The workers of one engine in this process, and the order in which their attempts begin: in time slices, so that the event loop
// gets its turn, and a suspect (see deaths.ts) only while nothing else runs.

import { setImmediate } from '../clock.js';
import type { TaskEnqueuer } from '../task/scope.js';
import { TimeSlice } from '../time-slice.js';

/** An attempt that waits for its turn. */
export interface Start {
  /** Whether nothing may run beside it. */
  readonly isAlone: boolean;
  begin(): void;
}

export class Starts {
  readonly #waiting: Start[] = [];
  #running = 0;
  #aloneWaiting = 0;
  #isAloneRunning = false;
  #isScheduled = false;
  readonly #slice = new TimeSlice();

  /** True while a task runs alone or waits to do so. No other task is taken then. */
  get isBlocked(): boolean {
    return this.#isAloneRunning || this.#aloneWaiting > 0;
  }

  add(start: Start): void {
    this.#waiting.push(start);
    if (start.isAlone) this.#aloneWaiting++;
    this.#schedule();
  }

  /** Called when an attempt that has begun has ended. */
  ended({ isAlone }: Start): void {
    this.#running--;
    if (isAlone) this.#isAloneRunning = false;
    if (this.#waiting.length > 0) this.#schedule();
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#pump);
  }

  readonly #pump = (): void => {
    this.#isScheduled = false;
    this.#slice.begin();
    for (let [next] = this.#waiting; next !== undefined; [next] = this.#waiting) {
      // The attempt that is in the way schedules the pump when it ends.
      if (this.#isAloneRunning || (next.isAlone && this.#running > 0)) return;
      this.#waiting.shift();
      if (next.isAlone) this.#aloneWaiting--;
      this.#isAloneRunning = next.isAlone;
      this.#running++;
      next.begin();
      if (!this.#slice.isOver()) continue;
      this.#schedule();
      return;
    }
  };
}

/** A worker, as the other workers of its engine see it. */
export interface Colleague {
  knows(name: string): boolean;
  /** Called when there may be a task to take. */
  wake(): void;
}

/** The workers of one engine in this process. */
export class WorkerGroup<Worker extends Colleague> extends Set<Worker> {
  readonly starts = new Starts();

  constructor(readonly engine?: TaskEnqueuer) {
    super();
  }
}
