// Reports failed tasks to onError or the logger, and counts the reports that they have not finished with.

import type { Request, Response } from 'express';
import type { Surroundings } from '../task/attempt.js';
import type { Call } from '../task/call.js';
import type { Reporter } from '../task/report.js';
import { type Scope, scope, type TaskAdder, type TaskEnqueuer } from '../task/scope.js';
import type { TaskInfo } from '../task/types.js';
import type { KeepAlive } from './keep-alive.js';

/** A task that failed or was abandoned. */
export interface Failure {
  readonly task: TaskInfo;
  readonly error: unknown;
  readonly call: Call;
}

/** The list of a failed task. */
export interface FailedList {
  /** Absent where the response is gone. */
  readonly req: Request | undefined;
  readonly res: Response | undefined;
  readonly scope: Surroundings;
  readonly keepAlive: KeepAlive | undefined;
}

/** The reports of all responses. */
export class Reports {
  /** How many reports are under way or about to be made. */
  open = 0;
  readonly #reporter: Reporter;
  readonly #onEnd: () => void;

  constructor(reporter: Reporter, onEnd: () => void) {
    this.#reporter = reporter;
    this.#onEnd = onEnd;
  }

  /** Reports in the context of the task's add(), so that a logger finds the AsyncLocalStorage stores of its request. */
  report(list: FailedList, { task, error, call }: Failure): void {
    const { req, res } = list;
    const context = { task, args: call.args, ...(req && { req }), ...(res && { res }) };
    const here = new ReportScope(this, list.scope);
    const pending = call.outside(here, () => this.#reporter.report(error, context));
    void this.#follow(list, pending, here);
  }

  /** For an error that is not a task's failure. */
  log(list: FailedList, error: unknown, task: TaskInfo, message: string): void {
    const here = new ReportScope(this, list.scope);
    const pending = scope.run(here, () => this.#reporter.log(error, task, message));
    void this.#follow(list, pending, here);
  }

  /** Announces a report. */
  begin({ keepAlive }: FailedList): void {
    this.open++;
    keepAlive?.hold();
  }

  end({ keepAlive }: FailedList): void {
    this.open--;
    void keepAlive?.release();
    this.#onEnd();
  }

  async #follow(list: FailedList, pending: Promise<void> | undefined, here: ReportScope): Promise<void> {
    if (pending === undefined) {
      here.isOpen = false;
      return;
    }
    this.begin(list);
    await pending;
    here.isOpen = false;
    this.end(list);
  }
}

/** The scope in which onError or the logger runs. */
export class ReportScope implements Scope {
  readonly task = undefined;
  readonly response: TaskAdder | undefined;
  readonly enqueuer: TaskEnqueuer | undefined;
  isOpen = true;

  constructor(
    readonly reports: Reports,
    { response, enqueuer }: Surroundings,
  ) {
    this.response = response;
    this.enqueuer = enqueuer;
  }
}
