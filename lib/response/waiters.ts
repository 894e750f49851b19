// The calls of idle() and close() that wait for the end of the tasks. A call from outside waits for all of them. A call inside a
// task or onError must not wait for its caller, nor for another caller that waits in the same way: that would last for ever.

import { setImmediate } from '../clock.js';
import type { Attempt } from '../task/attempt.js';
import type { TaskList } from './list.js';
import type { ReportScope } from './reports.js';

/** The task or the report in which a call was made. */
export type Caller = { readonly attempt: Attempt; readonly list: TaskList } | { readonly report: ReportScope };

/** `all` tasks and reports; `others`: all but the callers; `free`: neither the callers nor the tasks that are held up by them. */
type Awaited = 'all' | 'others' | 'free';

/** The work that is waited for. */
interface Work {
  /** How many tasks are pending or running. */
  readonly unfinished: number;
  readonly reports: { readonly open: number };
  readonly settings: { readonly concurrency: number };
}

interface Waiter {
  readonly awaits: Awaited;
  readonly resolve: () => void;
}

export class Waiters {
  readonly #work: Work;
  readonly #callers = new Map<Attempt, TaskList>();
  readonly #callingReports = new Set<ReportScope>();
  #waiters: Waiter[] = [];
  #isCheckScheduled = false;

  constructor(work: Work) {
    this.#work = work;
  }

  wait(awaits: Awaited, resolve: () => void): void {
    this.#waiters.push({ awaits, resolve });
    this.check();
  }

  addCaller(caller: Caller): void {
    if ('report' in caller) this.#callingReports.add(caller.report);
    else this.#callers.set(caller.attempt, caller.list);
    this.check(); // It may have been the last one that another caller waited for.
  }

  isCaller(attempt: Attempt): boolean {
    return this.#callers.has(attempt);
  }

  /**
   * Called when a task or a report has ended. The check is made in the next turn of the event loop, so that it includes what
   * follows within this turn, such as an `add` after `await handle.finished`.
   */
  check(): void {
    if (this.#waiters.length === 0 || this.#isCheckScheduled) return;
    const { unfinished, reports } = this.#work;
    if (unfinished + reports.open > 0 && this.#callers.size + this.#callingReports.size === 0) return;
    this.#isCheckScheduled = true;
    setImmediate(() => {
      this.#isCheckScheduled = false;
      this.#resolve();
    });
  }

  #resolve(): void {
    const left = this.#left();
    const waiters = this.#waiters;
    this.#waiters = waiters.filter(({ awaits }) => left[awaits] > 0);
    if (this.#waiters.length === 0) {
      this.#callers.clear();
      this.#callingReports.clear();
    }
    for (const { awaits, resolve } of waiters) {
      if (left[awaits] === 0) resolve();
    }
  }

  #left(): Record<Awaited, number> {
    let behind = 0;
    for (const [attempt, list] of this.#callers) {
      if (list.isRunning(attempt)) behind += list.unfinished - 1;
      else this.#callers.delete(attempt);
    }
    for (const report of this.#callingReports) {
      if (!report.isOpen) this.#callingReports.delete(report);
    }
    const { unfinished, reports, settings } = this.#work;
    const otherTasks = unfinished - this.#callers.size;
    const otherReports = reports.open - this.#callingReports.size;
    const haveAllSlots = this.#callers.size === settings.concurrency;
    return {
      all: unfinished + reports.open,
      others: otherTasks + otherReports,
      free: (haveAllSlots ? 0 : otherTasks - behind) + otherReports,
    };
  }
}
