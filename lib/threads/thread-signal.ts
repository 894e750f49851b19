// The signal of a task, inside of the thread that runs it.

import { BackgroundTasksError } from '../errors.js';
import { abortReasons, type Slots } from './slots.js';

/**
 * A signal that looks into the shared memory whenever it is asked. So code that never yields is told as well; the event comes when
 * the thread yields.
 */
export class ThreadSignal {
  readonly #controller = new AbortController();
  readonly #slots: Slots;
  readonly #slot: number;
  readonly #task: string;
  #reason: Error | undefined = undefined;
  /** The slot is another call's then. */
  #isOver: boolean;

  constructor(slots: Slots, slot: number, task: string, isOver: boolean) {
    this.#isOver = isOver;
    this.#slots = slots;
    this.#slot = slot;
    this.#task = task;
    Object.defineProperties(this.signal, {
      aborted: { get: () => this.#look() !== undefined },
      reason: { get: () => this.#look() },
      throwIfAborted: {
        value: () => {
          const reason = this.#look();
          if (reason !== undefined) throw reason;
        },
      },
    });
    if (!isOver) void this.#follow();
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  end(): void {
    this.#look();
    this.#isOver = true;
    this.#slots.wake(this.#slot);
  }

  async #follow(): Promise<void> {
    await this.#slots.woken(this.#slot);
    const reason = this.#look();
    if (reason !== undefined) this.#controller.abort(reason);
  }

  #look(): Error | undefined {
    if (!this.#isOver) this.#reason ??= reasonOf(this.#slots.reasonOf(this.#slot), this.#task);
    return this.#reason;
  }
}

function reasonOf(reason: number, task: string): Error | undefined {
  switch (reason) {
    case abortReasons.none:
      return undefined;
    case abortReasons.timeout:
      return new DOMException('The task did not end within its time limit', 'TimeoutError');
    case abortReasons.abandoned:
      return new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${task}" was abandoned`);
    default:
      return new DOMException('The task was cancelled', 'AbortError');
  }
}
