// What happens to a task that a worker has taken and cannot run: it does not know the task, or another one runs alone. All tasks
// are in one queue of BullMQ, so a worker cannot pass over some of them.

import { monotonicTime, wallClockTime } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { HeldJob } from './held-job.js';
import type { Names } from './names.js';

/** Tasks that nobody knows come back one by one, so many ms apart, so that others do not wait behind thousands of them. */
const spacing = 4;

/** Refusals that follow each other within so many ms are a flood. In a flood a worker does not wait for others to take a task. */
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

  /** True while a refused task is left to other workers. Meanwhile this one takes nothing, or it would take that task again. */
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
      if (!isKnownHere && !isKnown) return await job.delay(this.#untilReturn());
      // A worker that waits takes it at once. If all are busy, it comes back later each time.
      if (!isFlood && times <= 3) return await job.toFront(3);
      return await job.delay(times < 20 ? 5 : 100, Math.min(times, 10));
    } finally {
      if (!isFlood) this.#change(-1);
    }
  }

  /** How long a task that nobody knows is put aside, in ms. Not long, since a worker that knows it may start at any time. */
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
