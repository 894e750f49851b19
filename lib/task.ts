// A task: what task() defines, and what add() makes of a function, its arguments and the context of the call.

import { AsyncResource } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { types } from 'node:util';
import type { Request, Response } from 'express';
import { type Attempt, type Attemptable, scope } from './attempt.js';
import { isAwaitable } from './awaitable.js';
import { BackgroundTasksError } from './errors.js';
import { checkTaskOptions, type TaskOptions } from './options.js';
import type { Queueable } from './queue.js';
import { show } from './show.js';
import type { AttemptTrace, TaskTrace } from './tracing.js';

export interface TaskInfo {
  readonly id: string;
  /** The name given to `task()`, or the function's own; `anonymous` if it has none. */
  readonly name: string;
  /** Counts from 1; 0 before the first one. */
  readonly attempt: number;
}

export type TaskStatus = 'pending' | 'running' | TaskOutcome['status'];

/** How a task ended. */
export type TaskOutcome =
  | { readonly status: 'succeeded'; readonly value: unknown }
  | { readonly status: 'failed' | 'abandoned'; readonly error: unknown }
  | { readonly status: 'skipped' | 'cancelled' };

/** What `add` returns. */
export interface TaskHandle {
  readonly id: string;
  readonly name: string;
  readonly status: TaskStatus;
  /** Resolves when the task is over; never rejects. */
  readonly finished: Promise<TaskOutcome>;
  /**
   * Pending: the task never runs; returns true. Running: aborts its signal; it ends as `cancelled` if it then rejects;
   * returns false. Over: returns false.
   */
  cancel(): boolean;
}

/** A function with a name and options of its own, callable like the function. */
export interface Task<A extends unknown[] = never[], R = unknown> {
  (...args: A): R;
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): Task<A, R>;
}

/** A task whose handler lives in another program: for `enqueue` only. */
export interface RemoteTask<A extends unknown[] = never[]> {
  readonly name: string;
  /** A copy with these options over the old ones. Throws `ERR_INVALID_OPTION`. */
  with(options: TaskOptions): RemoteTask<A>;
  /** Never there: it carries the types of the arguments. */
  readonly [argumentTypes]?: (...args: A) => void;
}

declare const argumentTypes: unique symbol;

/**
 * Gives a function a name and options. Without a function, it names a task whose handler lives in another program.
 *
 * @throws BackgroundTasksError `ERR_INVALID_TASK` for a bad name or handler, `ERR_INVALID_OPTION` for bad options.
 * @example
 * const sendMail = task('send-mail', async (to: string) => { … }, { timeout: 5000, retries: 3 });
 * const resize = task<[path: string, width: number]>('images.resize');
 */
export function task<A extends unknown[], R>(
  name: string,
  handler: (...args: A) => R,
  options?: TaskOptions,
): Task<A, R>;
export function task<A extends unknown[]>(name: string, options?: TaskOptions): RemoteTask<A>;
export function task(
  name: string,
  ...rest: [handler?: AnyFunction | TaskOptions | undefined, options?: TaskOptions | undefined]
): Task | RemoteTask {
  if (typeof name !== 'string' || name === '') {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task(): the name must be a string that is not empty, not ${show(name)}`,
    );
  }
  const [handler, options = {}] = rest;
  if (typeof handler === 'function') return localTask(name, handler, options);
  // A handler that is undefined is mostly one that was misspelled.
  if (rest.length > 1 || (rest.length === 1 && (!isAwaitable(handler) || types.isPromise(handler)))) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `task("${name}"): the handler must be a function, not ${show(handler)}`,
    );
  }
  return remoteTask(name, handler ?? {});
}

function localTask<A extends unknown[], R>(name: string, handler: (...args: A) => R, options: TaskOptions): Task<A, R> {
  checkTaskOptions(options);
  const own = copyOptions(options);
  const callable = Object.defineProperty((...args: A): R => handler(...args), 'name', { value: name });
  const defined = Object.assign(callable, {
    with: (changed: TaskOptions): Task<A, R> => localTask(name, handler, changedOptions(own, changed)),
  });
  definitions.set(defined, { name, options: own });
  return defined;
}

function remoteTask<A extends unknown[]>(name: string, options: TaskOptions): RemoteTask<A> {
  checkTaskOptions(options);
  const own = copyOptions(options);
  const defined: RemoteTask<A> = {
    name,
    with: (changed) => remoteTask(name, changedOptions(own, changed)),
  };
  definitions.set(defined, { name, options: own });
  return defined;
}

/** What the caller does with its objects later has not been checked. */
function copyOptions(options: TaskOptions): TaskOptions {
  const { retries } = options;
  return typeof retries === 'object' ? { ...options, retries: { ...retries } } : { ...options };
}

/** The old options have been checked; the new ones are checked alone, so that the message speaks of them. */
function changedOptions(options: TaskOptions, changed: TaskOptions): TaskOptions {
  checkTaskOptions(changed);
  return { ...options, ...changed };
}

interface Definition {
  readonly name: string;
  readonly options: TaskOptions;
}

const definitions = new WeakMap<object, Definition>();

/** What {@link task} made of it; undefined for anything else. */
export function definitionOf(defined: unknown): Definition | undefined {
  return isAwaitable(defined) ? definitions.get(defined) : undefined;
}

export type AnyFunction = (...args: never[]) => unknown;

/** The list that a task belongs to until it is over. */
export interface TaskOwner {
  readonly req: Request;
  readonly res: Response;
  /** The task's handle was asked to cancel it, and it is not over. */
  cancel(task: AddedTask): void;
}

/**
 * The handle of an added task, and all that is kept of the task until it is over. It is itself the AsyncResource that
 * keeps the AsyncLocalStorage stores of its `add` call, and what only some tasks need stands elsewhere: 100,000 pending
 * tasks are 100,000 of these, and most of what they cost is what the garbage collector has to copy (bench/memory).
 */
export class AddedTask extends AsyncResource implements TaskHandle, Attemptable, Queueable<AddedTask> {
  next: AddedTask | undefined = undefined;
  /** The function, or its name once the task is over: who keeps a handle shall not keep what a closure holds. */
  #fn: AnyFunction | string;
  #args: readonly unknown[];
  #result: unknown = undefined;
  #owner: TaskOwner | undefined;
  #status: TaskStatus = 'pending';
  #id: string | undefined = undefined;
  #finished: Promise<TaskOutcome> | undefined = undefined;
  #resolve: ((outcome: TaskOutcome) => void) | undefined = undefined;

  constructor(fn: AnyFunction, args: readonly unknown[], owner: TaskOwner) {
    super('BackgroundTask');
    this.#fn = fn;
    this.#args = args;
    this.#owner = owner;
  }

  get id(): string {
    this.#id ??= randomUUID();
    return this.#id;
  }

  get name(): string {
    return typeof this.#fn === 'string' ? this.#fn : nameOf(this.#fn);
  }

  get status(): TaskStatus {
    return this.#status;
  }

  get finished(): Promise<TaskOutcome> {
    this.#finished ??= isOver(this.#status)
      ? Promise.resolve(outcome(this.#status, this.#result))
      : new Promise((resolve) => {
          this.#resolve = resolve;
        });
    return this.#finished;
  }

  /** The options given to {@link task}, undefined for a function without. */
  get options(): TaskOptions | undefined {
    return typeof this.#fn === 'string' ? undefined : definitions.get(this.#fn)?.options;
  }

  info(attempt: number): TaskInfo {
    return { id: this.id, name: this.name, attempt };
  }

  cancel(): boolean {
    const isPending = this.#status === 'pending';
    this.#owner?.cancel(this);
    return isPending;
  }

  begin(): void {
    this.#status = 'running';
  }

  call(attempt: Attempt, trace: AttemptTrace | undefined): unknown {
    return trace === undefined
      ? this.runInAsyncScope(scope.run, scope, attempt, Reflect.apply, this.#fn, undefined, this.#args)
      : this.runInAsyncScope(scope.run, scope, attempt, trace.call.bind(trace), this.#fn, this.#args);
  }

  trace(info: TaskInfo): TaskTrace {
    const trace: TaskTrace = { task: info, args: this.#args };
    return this.#owner === undefined ? trace : { ...trace, req: this.#owner.req, res: this.#owner.res };
  }

  settle(status: TaskOutcome['status'], result?: unknown): void {
    this.#fn = this.name;
    this.#args = noArguments;
    this.#result = result;
    this.#owner = undefined;
    this.#status = status;
    this.#resolve?.(outcome(status, result));
  }
}

const noArguments: readonly unknown[] = [];

function isOver(status: TaskStatus): status is TaskOutcome['status'] {
  return status !== 'pending' && status !== 'running';
}

function outcome(status: TaskOutcome['status'], result: unknown): TaskOutcome {
  switch (status) {
    case 'succeeded':
      return { status, value: result };
    case 'failed':
    case 'abandoned':
      return { status, error: result };
    default:
      return { status };
  }
}

/** A function's name may be anything, and a Proxy's may throw. */
function nameOf(fn: AnyFunction): string {
  try {
    const name: unknown = fn.name;
    return typeof name === 'string' && name !== '' ? name : 'anonymous';
  } catch {
    return 'anonymous';
  }
}
