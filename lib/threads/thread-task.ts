// The attempt of a task, inside of the thread that runs it: what currentTask() returns there.

import { clearTimeout, monotonicTime, setTimeout } from '../clock.js';
import { serializeProgress } from '../task/progress.js';
import type { Scope, TaskContext } from '../task/scope.js';
import type { TaskInfo } from '../task/types.js';
import type { Slots } from './slots.js';
import { ThreadSignal } from './thread-signal.js';

export class ThreadTask implements TaskContext, Scope {
  readonly id: string;
  readonly name: string;
  readonly attempt: number;
  /** There is neither in a thread. */
  readonly response = undefined;
  readonly enqueuer = undefined;
  readonly #slots: Slots;
  readonly #slot: number;
  readonly #reports: Reports;
  #signal: ThreadSignal | undefined = undefined;
  #isOver = false;

  constructor({ id, name, attempt }: TaskInfo, slots: Slots, slot: number, report: (json: string) => void) {
    this.id = id;
    this.name = name;
    this.attempt = attempt;
    this.#slots = slots;
    this.#slot = slot;
    this.#reports = new Reports(report);
  }

  get task(): TaskContext {
    return this;
  }

  toJSON(): TaskInfo {
    return { id: this.id, name: this.name, attempt: this.attempt };
  }

  get signal(): AbortSignal {
    this.#signal ??= new ThreadSignal(this.#slots, this.#slot, this.name, this.#isOver);
    return this.#signal.signal;
  }

  /** Works as well without its task: `const { progress } = currentTask()`. */
  get progress(): (value: unknown) => void {
    return (value) => this.#progress(value);
  }

  #progress(value: unknown): void {
    if (this.#isOver) return; // What the task does later is ignored.
    const json = serializeProgress(value, this.name);
    if (json !== undefined) this.#reports.add(json);
  }

  /** Returns what was reported last. */
  end(): string | undefined {
    this.#isOver = true;
    this.#signal?.end();
    return this.#reports.end();
  }
}

/** So many reports leave the thread at once, and then one after each interval, in ms: the event loop is not flooded. */
const burst = 20;
const interval = 25;

/** What the task reports. What is held back follows when the thread yields, with the next report, or with the end. */
export class Reports {
  readonly #send: (json: string) => void;
  #left = burst;
  #countedAt = monotonicTime();
  #last: string | undefined = undefined;
  /** What the timer sends. */
  #late = '';
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(send: (json: string) => void) {
    this.#send = send;
  }

  add(json: string): void {
    this.#last = json;
    const now = monotonicTime();
    const more = Math.floor((now - this.#countedAt) / interval);
    if (more > 0) {
      this.#left = Math.min(burst, this.#left + more);
      this.#countedAt = now;
    }
    if (this.#left > 0) {
      this.#left--;
      clearTimeout(this.#timer); // What it holds is older.
      this.#timer = undefined;
      this.#send(json);
    } else {
      this.#late = json;
      this.#timer ??= setTimeout(() => this.#sendLate(), interval);
    }
  }

  end(): string | undefined {
    clearTimeout(this.#timer);
    return this.#last;
  }

  #sendLate(): void {
    this.#timer = undefined;
    this.#send(this.#late);
  }
}
