// One response's list, as its handlers see it: res.locals.backgroundTasks.

import { types } from 'node:util';
import type { Request, Response } from 'express';
import { scope } from './attempt.js';
import { BackgroundTasksError } from './errors.js';
import { outcomeOf, whenOver } from './response.js';
import { type Runner, TaskList } from './runner.js';
import { show } from './show.js';
import { AddedTask, type TaskHandle } from './task.js';

/** The tasks that run after one response. */
export interface BackgroundTasks {
  /**
   * Runs a function with these arguments, in this process, after the response: in the order of the calls, one at a time.
   * Lost if the process dies before.
   *
   * @throws BackgroundTasksError `ERR_INVALID_TASK` for what is no function, `ERR_TASKS_OVERLOADED` past `maxPending`,
   * `ERR_TASKS_CLOSED` after `close()`.
   */
  add<A extends unknown[]>(task: (...args: A) => unknown, ...args: A): TaskHandle;
}

declare global {
  namespace Express {
    interface Locals {
      backgroundTasks: BackgroundTasks;
    }
  }
}

export class ResponseTasks implements BackgroundTasks {
  readonly #runner: Runner;
  readonly #req: Request;
  readonly #res: Response;
  /** Made at the first add: a response without tasks costs this object, and no listener. */
  #list: TaskList | undefined = undefined;

  constructor(runner: Runner, req: Request, res: Response) {
    this.#runner = runner;
    this.#req = req;
    this.#res = res;
  }

  add<A extends unknown[]>(task: (...args: A) => unknown, ...args: A): TaskHandle {
    if (typeof task !== 'function') throw invalidTask(task);
    this.#runner.admit();
    const isFirst = this.#list === undefined;
    const list = this.#list ?? this.#open();
    // A task keeps the stores of its add() call. From inside a task that would be the attempt, and the attempt before it, and
    // so on: an endless chain of tasks that add the next one would keep all of them.
    const added =
      scope.getStore() === this
        ? new AddedTask(task, args, list)
        : scope.run(this, () => new AddedTask(task, args, list));
    this.#runner.add(list, added);
    if (isFirst) this.#runner.keepAlive(list, added);
    return added;
  }

  #open(): TaskList {
    const list = new TaskList(this.#runner, this.#req, this.#res, this);
    list.outcome = outcomeOf(this.#req, this.#res);
    if (list.outcome === undefined) {
      whenOver(this.#req, this.#res, (outcome) => {
        list.outcome = outcome;
        this.#runner.start(list);
      });
    }
    this.#list = list;
    return list;
  }
}

function invalidTask(task: unknown): BackgroundTasksError {
  const hint = types.isPromise(task) ? ': pass the function and its arguments, add(fn, ...args), not its call' : '';
  return new BackgroundTasksError('ERR_INVALID_TASK', `add(): a task must be a function, not ${show(task)}${hint}`);
}
