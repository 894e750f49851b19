// close(): waits until the tasks have ended, and gives up those that are left at its timeout.

import { clearTimeout, monotonicTime, setTimeout } from '../clock.js';
import type { Attempt } from '../task/attempt.js';
import type { TaskInfo } from '../task/types.js';
import type { LinkedSet } from './linked-set.js';
import type { TaskList } from './list.js';
import type { Caller, Waiters } from './waiters.js';

/** What `close()` resolves with. It counts from the call on. */
export interface CloseReport {
  succeeded: number;
  failed: number;
  /** The tasks that had not ended at the timeout. */
  abandoned: TaskInfo[];
}

/** What is closed. */
export interface Closable {
  isClosed: boolean;
  readonly stats: { readonly succeeded: number; readonly failed: number };
  readonly waiters: Waiters;
  /** The lists with tasks that have not ended. */
  readonly live: LinkedSet<TaskList>;
  /** Takes the steps in time slices. No task begins before the last one. */
  giveUp(steps: Iterator<unknown>): void;
}

export class Closing {
  readonly #closable: Closable;
  readonly #before: { readonly succeeded: number; readonly failed: number };
  readonly #abandoned: TaskInfo[] = [];
  /** The calls inside a task or onError. They do not wait for their caller, so they have a promise of their own. */
  readonly #inside = new Calls();
  readonly #outside = new Calls();
  #timer: NodeJS.Timeout | undefined = undefined;
  /** When the timer is due. */
  #due = Number.POSITIVE_INFINITY;

  /** Made at the first call of close(). */
  constructor(closable: Closable) {
    this.#closable = closable;
    this.#before = closable.stats;
  }

  /** Returns the same promise for each call. The shortest timeout counts. */
  call(timeout: number, caller: Caller | undefined): Promise<CloseReport> {
    const calls = caller === undefined ? this.#outside : this.#inside;
    if (calls.state === 'none') {
      calls.state = 'waiting';
      this.#closable.waiters.wait(caller === undefined ? 'all' : 'others', () => this.#end(calls));
    }
    if (calls.state === 'waiting') this.#giveUpAfter(timeout);
    return calls.promise;
  }

  #giveUpAfter(timeout: number): void {
    const due = monotonicTime() + timeout;
    if (due >= this.#due) return;
    this.#stopTimer();
    this.#due = due;
    this.#timer = setTimeout(() => {
      this.#stopTimer();
      this.#closable.isClosed = true;
      this.#closable.giveUp(this.#giveUp(`it had not ended when close() reached its timeout of ${timeout} ms`));
    }, timeout);
  }

  #stopTimer(): void {
    clearTimeout(this.#timer);
    this.#due = Number.POSITIVE_INFINITY;
  }

  /** Spares the tasks that have called close(), unless a call from outside waits for them. */
  *#giveUp(reason: string): Generator<undefined, void, void> {
    const { live, waiters } = this.#closable;
    const isOutside = this.#outside.state === 'waiting';
    const isSpared = (attempt: Attempt): boolean => !isOutside && waiters.isCaller(attempt);
    for (const list of live.toArray()) {
      for (const info of list.abandon(reason, isSpared)) {
        if (info !== undefined) this.#abandoned.push(info);
        yield;
      }
    }
    this.#end(this.#inside);
    if (isOutside) this.#end(this.#outside);
  }

  #end(calls: Calls): void {
    if (calls.state !== 'waiting') return;
    const { stats } = this.#closable;
    this.#closable.isClosed = true;
    calls.end({
      succeeded: stats.succeeded - this.#before.succeeded,
      failed: stats.failed - this.#before.failed,
      abandoned: [...this.#abandoned],
    });
    if (this.#inside.state !== 'waiting' && this.#outside.state !== 'waiting') this.#stopTimer();
  }
}

class Calls {
  state: 'none' | 'waiting' | 'over' = 'none';
  readonly #listeners: ((report: CloseReport) => void)[] = [];
  readonly promise = new Promise<CloseReport>((resolve) => {
    this.#listeners.push(resolve);
  });

  end(report: CloseReport): void {
    this.state = 'over';
    for (const listener of this.#listeners) listener(report);
  }
}
