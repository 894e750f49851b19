// res.locals.backgroundTasks: the tasks of one response, as its handlers see them.

import { types } from 'node:util';
import type { Request, Response } from 'express';
import { withDefaults } from '../engine/message.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isGeneratorFunction } from '../foreign-value.js';
import { readTaskOptions, type TaskOptions } from '../task/options.js';
import type { TaskAdder, TaskEnqueuer } from '../task/scope.js';
import type { Enqueue, SerializableArguments } from '../task/serializable.js';
import { definitionOf, type RemoteTask, type Task } from '../task/task.js';
import type { AnyFunction, TaskFunction, TaskHandle } from '../task/types.js';
import type { ResponseOutcome } from '../task/when.js';
import { AddedTask } from './added-task.js';
import { type ResponseScope, TaskList } from './list.js';
import { outcomeOf, whenOver } from './outcome.js';
import type { Runner } from './runner.js';
import type { Settings } from './settings.js';

/** The tasks that run after one response. */
export interface BackgroundTasks {
  /**
   * Runs a function with these arguments after the response, in this process. The tasks of a response run in the order of the
   * calls, one at a time. A task is lost if the process dies first.
   *
   * @throws BackgroundTasksError `ERR_INVALID_TASK` for anything but a function, `ERR_TASKS_OVERLOADED` beyond `maxPending`,
   * `ERR_TASKS_CLOSED` after `close()`.
   */
  add<A extends readonly unknown[], R = unknown>(task: TaskFunction<A, R>, ...args: A): TaskHandle<Awaited<R>>;
  /**
   * Stores a task on the engine. A worker runs it at least once, in any process, as soon as it is free. When the promise
   * resolves, the task survives a crash. It waits neither for the response nor for tasks that were added.
   *
   * Rejects with BackgroundTasksError `ERR_NO_ENGINE`, `ERR_INVALID_TASK` for what `task()` did not make,
   * `ERR_TASK_NOT_SERIALIZABLE` for arguments that are not JSON, `ERR_INVALID_OPTION` for what the engine cannot do, and
   * `ERR_ENGINE_UNAVAILABLE` where it was not stored within 5 seconds.
   */
  enqueue: Enqueue;
}

declare global {
  namespace Express {
    interface Locals {
      backgroundTasks: BackgroundTasks;
    }
  }
}

export class ResponseTasks implements BackgroundTasks {
  /** Where the response's handlers run. */
  readonly scope: ResponseScope;
  readonly #settings: Settings;
  readonly #runner: Runner;
  readonly #req: Request | undefined;
  readonly #res: Response | undefined;
  /** Made at the first add. A response without tasks costs this object and its scope, but no listener. */
  #list: TaskList | undefined = undefined;

  /** The tasks that were attached to a response, even if its `locals` have been replaced. */
  static of(res: Response & Owner): ResponseTasks | undefined {
    const tasks = res[ownTasks];
    return tasks !== undefined && tasks.#res === res ? tasks : undefined; // Otherwise copied from another response.
  }

  static attach(settings: Settings, runner: Runner, req: Request, res: Response & Owner): ResponseTasks {
    const tasks = new ResponseTasks(settings, runner, undefined, req, res);
    res[ownTasks] = tasks;
    return tasks;
  }

  /** For a response that is gone: its scope is still there. */
  static detached(settings: Settings, runner: Runner, scope: ResponseScope): ResponseTasks {
    return new ResponseTasks(settings, runner, scope);
  }

  private constructor(settings: Settings, runner: Runner, scope?: ResponseScope, req?: Request, res?: Response) {
    this.#settings = settings;
    this.#runner = runner;
    this.#req = req;
    this.#res = res;
    this.scope = scope ?? new WeakScope(settings, runner, this);
  }

  add<A extends readonly unknown[], R>(task: TaskFunction<A, R>, ...args: A): TaskHandle<Awaited<R>>;
  add(task: AnyFunction, ...args: unknown[]): TaskHandle {
    if (typeof task !== 'function' || isGeneratorFunction(task)) throw invalidTask(task);
    const forEnqueue = enqueueOptionOf(definitionOf(task)?.options);
    if (forEnqueue !== undefined) {
      throw new BackgroundTasksError(
        'ERR_INVALID_OPTION',
        `add(): task "${task.name}" has "${forEnqueue}", which is for enqueue()`,
      );
    }
    if (this.#res === undefined) this.#refuseCondition(task);
    this.#runner.admit();
    const list = this.#list ?? this.#open();
    const added = new AddedTask(task, args, list);
    list.add(added);
    return added;
  }

  enqueue<A extends readonly unknown[]>(
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<{ id: string }> {
    return enqueueWith(this.#settings, task, args);
  }

  #open(): TaskList {
    const req = this.#req;
    const res = this.#res;
    const outcome = req === undefined || res === undefined ? unknownOutcome : outcomeOf(req, res);
    const list = new TaskList(this.#runner, req, res, this.scope, outcome);
    if (req !== undefined && res !== undefined && outcome === undefined) {
      whenOver(req, res, (known) => list.responseOver(known));
    }
    this.#list = list;
    return list;
  }

  #refuseCondition(task: AnyFunction): void {
    const { when } = readTaskOptions(definitionOf(task)?.options ?? {}, this.#settings);
    if (when === undefined) return;
    throw new BackgroundTasksError(
      'ERR_NO_RESPONSE_CONTEXT',
      'after(): the response is gone, so "when" cannot be asked: add the task before the response ends, or give it ' +
        "when: 'always'",
    );
  }
}

/** Holds the response weakly, since a scope lives as long as whatever a handler leaves behind. */
class WeakScope implements ResponseScope, TaskAdder, TaskEnqueuer {
  readonly task = undefined;
  readonly #settings: Settings;
  readonly #runner: Runner;
  readonly #tasks: WeakRef<ResponseTasks>;
  /** Takes the tasks that are added after the response is gone. They run one at a time, too. */
  #late: ResponseTasks | undefined = undefined;

  constructor(settings: Settings, runner: Runner, tasks: ResponseTasks) {
    this.#settings = settings;
    this.#runner = runner;
    this.#tasks = new WeakRef(tasks);
  }

  get response(): TaskAdder {
    return this;
  }

  get enqueuer(): TaskEnqueuer {
    return this;
  }

  add<A extends readonly unknown[], R>(task: TaskFunction<A, R>, ...args: A): TaskHandle<Awaited<R>> {
    let tasks = this.#tasks.deref();
    if (tasks === undefined) {
      this.#late ??= ResponseTasks.detached(this.#settings, this.#runner, this);
      tasks = this.#late;
    }
    return tasks.add(task, ...args);
  }

  enqueue<A extends readonly unknown[]>(
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<{ id: string }> {
    return enqueueWith(this.#settings, task, args);
  }
}

/** Keeps a response's tasks as long as the response, whatever happens to its `locals`. */
const ownTasks = Symbol('express-background-tasks');

interface Owner {
  [ownTasks]?: ResponseTasks;
}

/** For a response that is gone. It is not used, since a task with a condition is refused. */
const unknownOutcome: ResponseOutcome = { statusCode: 0, completed: false };

const enqueueOptions = ['delay', 'priority', 'key', 'whileRunning'] as const;

function enqueueOptionOf(options: TaskOptions | undefined): string | undefined {
  return options && enqueueOptions.find((name) => options[name] !== undefined);
}

/** The settings of the middleware apply where the task has none of its own. */
async function enqueueWith<A extends readonly unknown[]>(
  settings: Settings,
  task: Task<A> | RemoteTask<A>,
  args: SerializableArguments<A>,
): Promise<{ id: string }> {
  const { engine } = settings;
  if (engine === undefined) {
    throw new BackgroundTasksError(
      'ERR_NO_ENGINE',
      'enqueue(): give backgroundTasks() an engine, such as sqlite({ path })',
    );
  }
  return engine.enqueue(withDefaults(task, settings), ...args);
}

function invalidTask(task: unknown): BackgroundTasksError {
  if (isGeneratorFunction(task)) {
    const message = 'add(): a task must not be a generator function: nothing would run its body';
    return new BackgroundTasksError('ERR_INVALID_TASK', message);
  }
  const remote = definitionOf(task);
  if (remote !== undefined) {
    const message = `add(): the handler of task "${remote.name}" is in another program: use enqueue()`;
    return new BackgroundTasksError('ERR_INVALID_TASK', message);
  }
  const hint = types.isPromise(task) ? ': pass the function and its arguments, add(fn, ...args), not its call' : '';
  return new BackgroundTasksError(
    'ERR_INVALID_TASK',
    `add(): a task must be a function, not ${inspectShort(task)}${hint}`,
  );
}
