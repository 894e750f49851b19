// Who goes when: slots, time slices, and the waiting of idle() and close(). What happens to one response's tasks is the list's part.

import { clearTimeout, monotonicTime, setImmediate, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import type { TaskInfo, TaskOutcome } from '../task/types.js';
import { LinkedSet } from './linked-set.js';
import type { ListRunner, TaskList } from './list.js';
import { Queue } from './queue.js';
import { Reports } from './reports.js';
import type { Settings } from './settings.js';

/** Counts of tasks: the first two of this moment, the others since the start. */
export interface Stats {
  pending: number;
  running: number;
  succeeded: number;
  failed: number;
  skipped: number;
  cancelled: number;
  abandoned: number;
}

/** What `close()` resolves with, counted from its call on. */
export interface CloseReport {
  succeeded: number;
  failed: number;
  /** The tasks that had not ended at the timeout. */
  abandoned: TaskInfo[];
}

/** After this many ms of tasks the event loop gets its turn. */
const timeSlice = 5;

export class Runner implements ListRunner {
  readonly settings: Settings;
  readonly reports: Reports;
  /** Lists with tasks that have not ended: what close() gives up at its timeout. */
  readonly #live = new LinkedSet<TaskList>();
  /** Lists that go on as soon as the time slice allows. */
  readonly #ready = new Queue<TaskList>();
  /** Lists that wait for one of the `concurrency` slots. */
  readonly #waiting = new Queue<TaskList>();
  readonly #stats: Stats = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };
  #freeSlots: number;
  #isPumpScheduled = false;
  #sliceEnd = 0;
  #idleListeners: (() => void)[] = [];
  #isIdleCheckScheduled = false;
  isClosed = false;
  #closing: Promise<CloseReport> | undefined = undefined;
  #endClosing: (() => void) | undefined = undefined;
  #closeTimer: NodeJS.Timeout | undefined = undefined;
  /** When the timer is due. */
  #closeTimeout = Number.POSITIVE_INFINITY;
  /** From the timeout of `close()` on: gives up one task after the other. */
  #givingUp: Iterator<TaskInfo | undefined> | undefined = undefined;
  /** What `close()` has given up. */
  readonly #abandoned: TaskInfo[] = [];

  constructor(settings: Settings) {
    this.settings = settings;
    this.reports = new Reports(settings.reporter, () => this.#checkIdle());
    this.#freeSlots = settings.concurrency;
  }

  get stats(): Stats {
    return { ...this.#stats };
  }

  /** Throws where no task can be accepted. */
  admit(): void {
    if (this.isClosed) {
      throw new BackgroundTasksError('ERR_TASKS_CLOSED', 'add(): the background tasks are closed, after close()');
    }
    const { maxPending } = this.settings;
    if (this.#stats.pending + this.#stats.running >= maxPending) {
      throw new BackgroundTasksError(
        'ERR_TASKS_OVERLOADED',
        `add(): ${maxPending} tasks have not ended yet (maxPending)`,
      );
    }
  }

  added(list: TaskList): void {
    this.#stats.pending++;
    this.#live.add(list);
  }

  began(): void {
    this.#stats.pending--;
    this.#stats.running++;
  }

  ended(was: 'pending' | 'running', status: TaskOutcome['status']): void {
    this.#stats[was]--;
    this.#stats[status]++;
    this.#checkIdle();
  }

  enter(list: TaskList): void {
    if (this.#freeSlots > 0) {
      this.#freeSlots--;
      list.begin();
    } else {
      this.#waiting.push(list);
    }
  }

  get hasWaiting(): boolean {
    return !this.#waiting.isEmpty;
  }

  giveWay(list: TaskList): void {
    this.#waiting.push(list);
    this.#passSlot();
  }

  leave(list: TaskList): void {
    this.#live.delete(list);
    this.#passSlot();
  }

  #passSlot(): void {
    const next = this.#waiting.shift();
    if (next === undefined) this.#freeSlots++;
    else next.begin();
  }

  queue(list: TaskList): void {
    this.#ready.push(list);
    this.#schedulePump();
  }

  isSliceOver(): boolean {
    return this.#givingUp !== undefined || this.#isTimeUp();
  }

  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenIdle(resolve);
    });
  }

  /** Called again, it returns the same promise, and the shortest of the timeouts counts. */
  close(timeout: number): Promise<CloseReport> {
    this.#closing ??= this.#startClosing();
    this.#giveUpAfter(timeout);
    return this.#closing;
  }

  #startClosing(): Promise<CloseReport> {
    const { succeeded, failed } = this.#stats;
    return new Promise((resolve) => {
      this.#endClosing = () => {
        this.isClosed = true;
        clearTimeout(this.#closeTimer);
        resolve({
          succeeded: this.#stats.succeeded - succeeded,
          failed: this.#stats.failed - failed,
          abandoned: this.#abandoned,
        });
      };
      this.#whenIdle(this.#endClosing);
    });
  }

  #giveUpAfter(timeout: number): void {
    const end = monotonicTime() + timeout;
    if (this.isClosed || end >= this.#closeTimeout) return;
    this.#closeTimeout = end;
    clearTimeout(this.#closeTimer);
    this.#closeTimer = setTimeout(() => {
      this.isClosed = true;
      this.#givingUp = this.#giveUp(`it had not ended when close() reached its timeout of ${timeout} ms`);
      this.#runSlice();
    }, timeout);
  }

  *#giveUp(reason: string): Generator<TaskInfo | undefined, void, void> {
    for (const list of this.#live.toArray()) yield* list.abandon(reason);
  }

  #schedulePump(): void {
    if (this.#isPumpScheduled) return;
    this.#isPumpScheduled = true;
    setImmediate(this.#pump);
  }

  readonly #pump = (): void => {
    this.#isPumpScheduled = false;
    this.#runSlice();
  };

  #runSlice(): void {
    this.#sliceEnd = monotonicTime() + timeSlice;
    if (this.#givingUp === undefined) this.#runLists();
    else this.#continueGivingUp(this.#givingUp);
    if (this.#givingUp !== undefined || !this.#ready.isEmpty) this.#schedulePump();
  }

  #isTimeUp(): boolean {
    return monotonicTime() >= this.#sliceEnd;
  }

  #runLists(): void {
    let list = this.#ready.shift();
    while (list !== undefined) {
      list.advance();
      list = this.#isTimeUp() ? undefined : this.#ready.shift();
    }
  }

  /** In which no list goes on. */
  #continueGivingUp(givingUp: Iterator<TaskInfo | undefined>): void {
    do {
      const { done, value } = givingUp.next();
      if (value !== undefined) this.#abandoned.push(value);
      if (done === true) {
        this.#givingUp = undefined;
        this.#endClosing?.();
        return;
      }
    } while (!this.#isTimeUp());
  }
  #whenIdle(listener: () => void): void {
    this.#idleListeners.push(listener);
    this.#checkIdle();
  }

  /** In the next turn, so that what follows in the turn of a task's end is waited for, such as an `add` behind `finished`. */
  #checkIdle(): void {
    if (this.#idleListeners.length === 0 || this.#isIdleCheckScheduled || this.#isBusy) return;
    this.#isIdleCheckScheduled = true;
    setImmediate(() => {
      this.#isIdleCheckScheduled = false;
      if (this.#isBusy) return;
      const listeners = this.#idleListeners;
      this.#idleListeners = [];
      for (const listener of listeners) listener();
    });
  }

  get #isBusy(): boolean {
    return this.#stats.pending + this.#stats.running + this.reports.open > 0;
  }
}
