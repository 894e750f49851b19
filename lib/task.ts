// A task: what task() defines, and what add() makes of a function, its arguments and the context of the call.

import { AsyncResource } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { types } from 'node:util';
import type { Request, Response } from 'express';
import { type Attempt, type Attemptable, canEnter, scope, type TaskAdder } from './attempt.js';
import { isAwaitable } from './awaitable.js';
import { BackgroundTasksError } from './errors.js';
import { checkTaskOptions, copyTaskOptions, type TaskOptions } from './options.js';
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
  const own = copyTaskOptions(options);
  const callable = Object.defineProperty((...args: A): R => handler(...args), 'name', { value: name });
  const defined = Object.assign(callable, {
    with: (changed: TaskOptions): Task<A, R> => localTask(name, handler, changedOptions(own, changed)),
  });
  definitions.set(defined, { name, options: own });
  return defined;
}

function remoteTask<A extends unknown[]>(name: string, options: TaskOptions): RemoteTask<A> {
  checkTaskOptions(options);
  const own = copyTaskOptions(options);
  const defined: RemoteTask<A> = {
    name,
    with: (changed) => remoteTask(name, changedOptions(own, changed)),
  };
  definitions.set(defined, { name, options: own });
  return defined;
}

/** The old options have been checked; the new ones are checked alone, so that the message speaks of them. */
function changedOptions(options: TaskOptions, changed: TaskOptions): TaskOptions {
  checkTaskOptions(changed);
  return { ...options, ...copyTaskOptions(changed) };
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
 * The handle of an added task, and all that is kept of the task until it is over. What only some tasks need stands elsewhere:
 * 100,000 pending tasks are 100,000 of these, and most of what they cost is what the garbage collector has to copy
 * (bench/memory). It has no private method, which would cost each of them 8 bytes.
 */
export class AddedTask implements TaskHandle, Attemptable, Queueable<AddedTask> {
  next: AddedTask | undefined = undefined;
  /** Its name once all is told: who keeps a handle shall not keep the response, nor what a closure holds. */
  #call: Call | string;
  #owner: TaskOwner | undefined;
  #status: TaskStatus = 'pending';
  #details: Details | undefined = undefined;

  constructor(fn: AnyFunction, args: readonly unknown[], owner: TaskOwner) {
    this.#call = new Call(fn, args);
    this.#owner = owner;
  }

  get id(): string {
    this.#details ??= noDetails();
    this.#details.id ??= randomUUID();
    return this.#details.id;
  }

  get name(): string {
    return typeof this.#call === 'string' ? this.#call : nameOf(this.#call.fn);
  }

  get status(): TaskStatus {
    return this.#status;
  }

  get finished(): Promise<TaskOutcome> {
    this.#details ??= noDetails();
    const details = this.#details;
    details.finished ??= isOver(this.#status)
      ? Promise.resolve(outcome(this.#status, details.result))
      : new Promise((resolve) => {
          details.resolve = resolve;
        });
    return details.finished;
  }

  /** The options given to {@link task}, undefined for a function without. */
  get options(): TaskOptions | undefined {
    return typeof this.#call === 'string' ? undefined : definitions.get(this.#call.fn)?.options;
  }

  info(attempt: number): TaskInfo {
    return { id: this.id, name: this.name, attempt };
  }

  toJSON(): Pick<TaskHandle, 'id' | 'name' | 'status'> {
    return { id: this.id, name: this.name, status: this.#status };
  }

  cancel(): boolean {
    const isPending = this.#status === 'pending';
    this.#owner?.cancel(this);
    return isPending;
  }

  begin(): void {
    this.#status = 'running';
  }

  /** Calls the function where the AsyncLocalStorage stores are those of the `add` call, but outside of any attempt. */
  inContext<R>(adder: TaskAdder, fn: () => R): R {
    // The scope may hold the attempt that called add() or, on Node 20 and 22, one of this task.
    return notOver(this.#call).runInAsyncScope<typeof scope, R>(scope.run, scope, adder, fn);
  }

  call(attempt: Attempt, trace: AttemptTrace | undefined): unknown {
    return notOver(this.#call).run(attempt, trace);
  }

  trace(info: TaskInfo): TaskTrace {
    const trace: TaskTrace = { task: info, args: typeof this.#call === 'string' ? [] : this.#call.args };
    return this.#owner === undefined ? trace : { ...trace, req: this.#owner.req, res: this.#owner.res };
  }

  settle(status: TaskOutcome['status'], result?: unknown): void {
    this.#owner = undefined;
    this.#status = status;
    if (result !== undefined) {
      this.#details ??= noDetails();
      this.#details.result = result;
    }
    this.#details?.resolve?.(outcome(status, result));
  }

  /** Once it is settled and reported. */
  release(): void {
    this.#call = this.name;
  }
}

/** The call to be made, and the AsyncLocalStorage stores of its `add` call, among them the response. */
class Call extends AsyncResource {
  constructor(
    readonly fn: AnyFunction,
    readonly args: readonly unknown[],
  ) {
    super('BackgroundTask');
  }

  run(attempt: Attempt, trace: AttemptTrace | undefined): unknown {
    return canEnter
      ? this.runInAsyncScope(enterAndCall, this, attempt, trace)
      : this.runInAsyncScope(scope.run, scope, attempt, callFunction, this, trace);
  }
}

/** For {@link Call}, whose resource puts the stores back: `run()` would copy them all once more to take the attempt out. */
function enterAndCall(this: Call, attempt: Attempt, trace: AttemptTrace | undefined): unknown {
  scope.enterWith(attempt);
  return callFunction(this, trace);
}

function callFunction({ fn, args }: Call, trace: AttemptTrace | undefined): unknown {
  return trace === undefined ? Reflect.apply(fn, undefined, args) : trace.call(fn, args);
}

function notOver(call: Call | string): Call {
  if (typeof call === 'string') throw new Error(`task "${call}" is over`);
  return call;
}

/** What is made when it is asked for. */
interface Details {
  id: string | undefined;
  result: unknown;
  finished: Promise<TaskOutcome> | undefined;
  resolve: ((outcome: TaskOutcome) => void) | undefined;
}

function noDetails(): Details {
  return { id: undefined, result: undefined, finished: undefined, resolve: undefined };
}

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
