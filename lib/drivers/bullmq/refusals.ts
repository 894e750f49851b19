// What becomes of a task that a worker has taken and cannot run, since it does not know it or another one runs alone. All tasks are
// in one queue of BullMQ, which cannot pass over some of them.

import { monotonicTime, wallClockTime } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { HeldJob } from './held-job.js';
import type { Names } from './names.js';

/** Of the tasks that nobody knows, one comes back in so many ms, however many they are: the others must not wait behind them. */
const spacing = 4;

/** Refusals within so many ms of each other are a flood: then nothing waits for anything. */
const pause = 10;

export class Refusals {
  readonly #runner: MessageRunner;
  readonly #names: Names;
  readonly #keyOf: (name: string) => string;
  readonly #onChange: () => void;
  readonly #startedAt = wallClockTime();
  #yielding = 0;
  #refusedAt = 0;
  /** When the next unknown task may come back. */
  #nextReturn = 0;

  constructor(runner: MessageRunner, names: Names, keyOf: (name: string) => string, onChange: () => void) {
    this.#runner = runner;
    this.#names = names;
    this.#keyOf = keyOf;
    this.#onChange = onChange;
  }

  /** True while a task that was refused is left to other workers: this one must not take it again. */
  get isYielding(): boolean {
    return this.#yielding > 0;
  }

  async refuse(job: HeldJob): Promise<never> {
    const { info } = job;
    const isKnownHere = this.#runner.isKnownHere(info.name);
    const mayBeTold = !isKnownHere && this.#names.areComplete;
    const isFlood = monotonicTime() < this.#refusedAt + pause;
    this.#refusedAt = monotonicTime();
    if (!isFlood) this.#change(1);
    try {
      const { times, isKnown, isUntold } = await job.refused(this.#keyOf(info.name), mayBeTold ? this.#startedAt : 0);
      if (isUntold) this.#runner.reportUnknown(info);
      if (!isKnownHere && !isKnown) return await job.putBack(this.#untilReturn());
      // Another worker that waits takes it at once. If all are busy, it comes back ever later.
      if (!isFlood && times <= 3) return await job.putBack(undefined, 3);
      return await job.putBack(times < 20 ? 5 : 100, Math.min(times, 10));
    } finally {
      if (!isFlood) this.#change(-1);
    }
  }

  /** ms for which a task that nobody knows is put aside: not for long, since a worker that knows it may begin at any time. */
  #untilReturn(): number {
    const now = monotonicTime();
    this.#nextReturn = Math.max(now + (this.#names.areComplete ? 1000 : 100), this.#nextReturn + spacing);
    return this.#nextReturn - now;
  }

  #change(by: number): void {
    this.#yielding += by;
    this.#onChange();
  }
}
