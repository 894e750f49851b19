// What running tasks report of their progress, on its way to the store: the last value of each, all of them at most twice a
// second, and in time for the end of the task.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout } from '../clock.js';
import { withDeadline } from './deadline.js';

export interface Progress {
  readonly id: string;
  readonly attempt: number;
  /** JSON. */
  readonly json: string;
}

/** Between two writes, in ms. */
const interval = 500;

export class ProgressWriter {
  readonly #write: (progress: readonly Progress[]) => Promise<void>;
  readonly #unwritten = new Map<string, Progress>();
  #writing: Promise<void> | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;

  /** What `write` rejects with is lost: a report of progress never fails a task. */
  constructor(write: (progress: readonly Progress[]) => Promise<void>) {
    this.#write = write;
  }

  add(progress: Progress): void {
    this.#unwritten.set(progress.id, progress);
    this.#timer ??= setTimeout(this.#flush, interval);
  }

  /** Undefined if all that a task has reported is stored. Otherwise resolves when it is. */
  written(id: string): Promise<void> | undefined {
    return this.#unwritten.has(id) ? this.#flush() : this.#writing;
  }

  /** Without the AsyncLocalStorage stores of a task. */
  readonly #flush = AsyncResource.bind(async (): Promise<void> => {
    clearTimeout(this.#timer);
    this.#timer = undefined;
    while (this.#writing !== undefined) await this.#writing;
    if (this.#unwritten.size === 0) return;
    const progress = [...this.#unwritten.values()];
    this.#unwritten.clear();
    this.#writing = withDeadline(() => this.#write(progress))
      .catch(() => {})
      .finally(() => {
        this.#writing = undefined;
      });
    await this.#writing;
  });
}
