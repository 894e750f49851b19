// Who waits for the end of the tasks. A call of idle() or close() waits for all of them. A call in a task or in onError waits
// for the others, since what waits for itself waits for ever; so it waits for nothing else that waits so, either.

import { setImmediate } from '../clock.js';
import type { Attempt } from '../task/attempt.js';
import type { TaskList } from './list.js';
import type { ReportScope } from './reports.js';

/** The task or the report that a call was made in. */
export type Caller = { readonly attempt: Attempt; readonly list: TaskList } | { readonly report: ReportScope };

/** `all` tasks and reports; the `others`, without the callers; those that are `free` of them, without what is behind them, either. */
type Awaited = 'all' | 'others' | 'free';

/** What is waited for. */
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
  }

  isCaller(attempt: Attempt): boolean {
    return this.#callers.has(attempt);
  }

  /**
   * Called when a task or a report is over. Looks in the next turn, so that what follows in the turn of a task's end is waited
   * for, such as an `add` behind `finished`.
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
