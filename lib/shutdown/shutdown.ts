// One shutdown, however it begins: its phases run once, and what goes wrong on the way is logged.

import { clearTimeout, setTimeout } from '../clock.js';
import type { Reporter } from '../task/report.js';
import { type Closed, phasesOf, type ShutdownReport } from './phases.js';
import { runPhases } from './run-phases.js';

/** How long a logger may take to write what was logged, in ms. */
const patience = 1000;

export class Shutdown {
  readonly report: ShutdownReport = { unanswered: 0, failures: [] };
  readonly #closed: Closed;
  readonly #timeout: number;
  readonly #reporter: Reporter;
  #running: Promise<void> | undefined = undefined;
  /** What the logger has not written yet. */
  readonly #logs: unknown[] = [];

  constructor(closed: Closed, timeout: number, reporter: Reporter) {
    this.#closed = closed;
    this.#timeout = timeout;
    this.#reporter = reporter;
  }

  /** False if an error began it, if something failed, or if something was given up. */
  get isClean(): boolean {
    const { failures, tasks } = this.report;
    return !('error' in this.report) && failures.length === 0 && (tasks?.abandoned ?? []).length === 0;
  }

  /** Begins it, or waits for it. Never rejects. */
  run(): Promise<void> {
    this.#running ??= runPhases(phasesOf(this.#closed, this.report), this.#timeout, (failure) => {
      this.report.failures.push(failure);
      this.#log(failure.error, `While shutting down, "${failure.phase}" failed`);
    }).then(() => this.#logged());
    return this.#running;
  }

  /** Begins it because of what nobody caught. */
  runAfter(error: unknown): Promise<void> {
    this.report.error = error;
    this.#log(error, 'An error that nobody caught: the process shuts down');
    return this.run();
  }

  /** Says what is lost where the process ends before it has been shut down. `cause`: the signal or the error. */
  logLoss(cause: unknown, message: string): void {
    const { pending, running } = this.#closed.tasks?.stats ?? { pending: 0, running: 0 };
    this.#log(cause, `${message}, with ${pending + running} tasks that had not ended`);
  }

  #log(error: unknown, message: string): void {
    this.#logs.push(this.#reporter.log(error, undefined, message));
  }

  /** The process ends after it. */
  async #logged(): Promise<void> {
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise((resolve) => {
      timer = setTimeout(resolve, patience);
    });
    await Promise.race([Promise.allSettled(this.#logs), late]);
    clearTimeout(timer);
  }
}
