// One response's list, as its handlers see it: res.locals.backgroundTasks.

import { types } from 'node:util';
import type { Request, Response } from 'express';
import { withDefaults } from '../engine/message.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
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
   * Runs a function with these arguments, in this process, after the response: in the order of the calls, one at a time.
   * Lost if the process dies before.
   *
   * @throws BackgroundTasksError `ERR_INVALID_TASK` for what is no function, `ERR_TASKS_OVERLOADED` past `maxPending`,
   * `ERR_TASKS_CLOSED` after `close()`.
   */
  add<A extends readonly unknown[], R = unknown>(task: TaskFunction<A, R>, ...args: A): TaskHandle<Awaited<R>>;
  /**
   * Hands a task over to the engine, which runs it as soon as a worker is free, in any process, at least once. When the
   * promise resolves, the task survives a crash. It waits neither for the response nor for tasks that were added.
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
  /** Made at the first add: a response without tasks costs this object and its scope, and no listener. */
  #list: TaskList | undefined = undefined;

  /** Those of a response that has some, also where its `locals` were replaced. */
  static of(res: Response & Owner): ResponseTasks | undefined {
    const tasks = res[ownTasks];
    return tasks !== undefined && tasks.#res === res ? tasks : undefined; // Else they were copied from another response.
  }

  static attach(settings: Settings, runner: Runner, req: Request, res: Response & Owner): ResponseTasks {
    const tasks = new ResponseTasks(settings, runner, undefined, req, res);
    res[ownTasks] = tasks;
    return tasks;
  }

  /** Without a response, in the scope of one that is gone. */
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
    if (typeof task !== 'function' || types.isGeneratorFunction(task)) throw invalidTask(task);
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
      'after(): the response is over and gone, so that "when" has nothing to ask: add the task before the response ends, or give ' +
        "it when: 'always'",
    );
  }
}

/** Holds the response weakly: it lives as long as whatever a handler leaves behind. */
class WeakScope implements ResponseScope, TaskAdder, TaskEnqueuer {
  readonly task = undefined;
  readonly #settings: Settings;
  readonly #runner: Runner;
  readonly #tasks: WeakRef<ResponseTasks>;
  /** What is added once the response is gone, one at a time as well. */
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

/** Keeps a response's tasks as long as the response lives, whatever becomes of its `locals`. */
const ownTasks = Symbol('express-background-tasks');

interface Owner {
  [ownTasks]?: ResponseTasks;
}

/** Of a response that is gone. Nobody asks it: a task with a condition is refused. */
const unknownOutcome: ResponseOutcome = { statusCode: 0, completed: false };

const enqueueOptions = ['delay', 'priority', 'key'] as const;

function enqueueOptionOf(options: TaskOptions | undefined): string | undefined {
  return options && enqueueOptions.find((name) => options[name] !== undefined);
}

/** By the engine of the middleware, whose settings stand in for what the task does not say. */
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
  if (types.isGeneratorFunction(task)) {
    const message = 'add(): a task must be no generator function, whose body nobody would run';
    return new BackgroundTasksError('ERR_INVALID_TASK', message);
  }
  const remote = definitionOf(task);
  if (remote !== undefined) {
    const message = `add(): task "${remote.name}" has its handler in another program: it is for enqueue()`;
    return new BackgroundTasksError('ERR_INVALID_TASK', message);
  }
  const hint = types.isPromise(task) ? ': pass the function and its arguments, add(fn, ...args), not its call' : '';
  return new BackgroundTasksError(
    'ERR_INVALID_TASK',
    `add(): a task must be a function, not ${inspectShort(task)}${hint}`,
  );
}
