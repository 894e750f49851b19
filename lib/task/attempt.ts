// Runs a task once, with its context, its signal and its time limit. What follows from a failed attempt is decided elsewhere.

import { AsyncResource } from 'node:async_hooks';
import { inspect } from 'node:util';
import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { isAwaitable, writeStack } from '../foreign-value.js';
import type { Call } from './call.js';
import type { AttemptLimits } from './options.js';
import { serializeProgress } from './progress.js';
import type { Scope, TaskAdder, TaskContext, TaskEnqueuer } from './scope.js';
import { AttemptTrace, isTraced, type TaskTrace } from './tracing.js';
import type { TaskIdentity, TaskInfo } from './types.js';

/** What an attempt runs. */
export interface Attemptable {
  readonly call: Call;
  trace(info: TaskInfo): TaskTrace;
}

/** Where the task was added, or the worker that runs it. */
export type Surroundings = Omit<Scope, 'task'>;

/** Told when an attempt that had to be awaited has ended. */
export interface AttemptOwner {
  attemptOver(attempt: Attempt): void;
  /** The task has reported its progress, as JSON. */
  progressed(json: string): void;
}

/** An attempt that its task's function hands over, to a thread. It ends when what took it says so, also at its time limit. */
interface Elsewhere {
  /** Counts from the begin, not from the call: a thread may have to become free. Infinity for none. */
  readonly timeout: number;
  /** What the attempt fails with. Set at the time limit. */
  failure: BackgroundTasksError | undefined;
}

/**
 * An attempt is also the scope that its task runs in, so whatever the task leaves behind keeps the attempt alive. After its end
 * an attempt therefore holds neither the task, its arguments and its result, nor the owner.
 */
export class Attempt implements TaskContext, Scope {
  /** Counts from 1. */
  readonly attempt: number;
  /** Undefined where no response belongs to the task: in a worker. */
  readonly response: TaskAdder | undefined;
  readonly enqueuer: TaskEnqueuer | undefined;
  /** `dropped`: given up by {@link drop}. What the task does later is ignored. */
  state: 'running' | 'succeeded' | 'failed' | 'dropped' = 'running';
  readonly #identity: TaskIdentity;
  #owner: AttemptOwner | undefined = undefined;
  #result: unknown = undefined;
  #controller: SignalController | undefined = undefined;
  #abortReason: Error | undefined = undefined;
  #isCancelled = false;
  #timer: NodeJS.Timeout | undefined = undefined;
  #elsewhere: Elsewhere | undefined = undefined;
  #trace: AttemptTrace | undefined = undefined;

  constructor(identity: TaskIdentity, attempt: number, { response, enqueuer }: Surroundings) {
    this.#identity = identity;
    this.attempt = attempt;
    this.response = response;
    this.enqueuer = enqueuer;
  }

  get id(): string {
    return this.#identity.id;
  }

  get name(): string {
    return this.#identity.name;
  }

  get task(): TaskContext {
    return this;
  }

  toJSON(): TaskInfo {
    return { id: this.id, name: this.name, attempt: this.attempt };
  }

  /** For console.log() and the like. */
  [inspect.custom](): TaskInfo {
    return this.toJSON();
  }

  /** Few tasks look at their signal, so its controller is made on demand. */
  get signal(): AbortSignal {
    if (this.#controller === undefined) {
      this.#controller = new SignalController();
      if (this.#abortReason !== undefined) this.#controller.abort(this.#abortReason);
    }
    return this.#controller.signal;
  }

  /** Works as well without its task: `const { progress } = currentTask()`. */
  get progress(): (value: unknown) => void {
    return (value) => this.#progress(value);
  }

  #progress(value: unknown): void {
    if (this.#owner === undefined) return; // It is over, and what the task does later is ignored.
    const json = serializeProgress(value, this.name);
    if (json !== undefined) this.#owner.progressed(json);
  }

  /** Returns true if the attempt is over by then. If not, the owner is told when it is, unless it is dropped before. */
  run(task: Attemptable, { timeout, isElsewhere }: AttemptLimits, owner: AttemptOwner): boolean {
    this.#owner = owner;
    if (isElsewhere) this.#elsewhere = { timeout, failure: undefined };
    else if (timeout !== Number.POSITIVE_INFINITY) this.#limit(timeout);
    if (isTraced()) {
      const { id, name, attempt } = this;
      this.#trace = new AttemptTrace(task.trace({ id, name, attempt }));
      if (this.#isCancelled) this.#trace.cancel();
    }
    let result: unknown;
    try {
      result = task.call.run(this, this.#trace);
    } catch (error) {
      this.#end('failed', error);
      return true;
    }
    if (isAwaitable(result)) {
      void this.#follow(result);
      return false;
    }
    this.#end('succeeded', result);
    return true;
  }

  /** To be called when an attempt elsewhere begins: from then on its time counts. Undefined if it has no time limit. */
  get onBegin(): (() => void) | undefined {
    const timeout = this.#elsewhere?.timeout;
    if (timeout === undefined || timeout === Number.POSITIVE_INFINITY) return undefined;
    return () => {
      if (this.state === 'running') this.#limit(timeout);
    };
  }

  /** Returns what the attempt returned, or what it threw or rejected with, and forgets it. */
  takeResult(): unknown {
    const result = this.#result;
    this.#result = undefined;
    return result;
  }

  get isCancelled(): boolean {
    return this.#isCancelled;
  }

  cancel(): void {
    this.#isCancelled = true;
    this.#trace?.cancel();
    this.abort(new DOMException('The task was cancelled', 'AbortError'));
  }

  abort(reason: Error): void {
    writeStack(reason); // The reason stays with the signal, and its unread stack would keep the caller's response alive.
    this.#abortReason ??= reason;
    this.#controller?.abort(this.#abortReason);
  }

  /** Aborts the signal and waits no longer. */
  drop(reason: Error): void {
    this.abort(reason);
    this.#trace?.drop();
    this.#end('dropped', reason);
    this.#result = undefined;
  }

  /**
   * Awaits the value without looking at it: `await` copes with anything that poses as a promise. Somebody may keep a promise that
   * never settles, so this call holds nothing but the attempt.
   */
  async #follow(pending: object): Promise<void> {
    let state: 'succeeded' | 'failed' = 'succeeded';
    let result: unknown;
    try {
      result = await pending;
    } catch (error) {
      state = 'failed';
      result = error;
    }
    if (this.state !== 'running') return;
    const late = this.#elsewhere?.failure;
    if (late === undefined) this.#end(state, result)?.attemptOver(this);
    else this.#end('failed', late)?.attemptOver(this);
  }

  #limit(timeout: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const limit = `within ${timeout} ms`;
      const error = new BackgroundTasksError('ERR_TASK_TIMEOUT', `task "${this.name}" did not end ${limit}`);
      if (this.#elsewhere !== undefined) this.#elsewhere.failure = error;
      this.abort(new DOMException(`The task did not end ${limit}`, 'TimeoutError'));
      if (this.#elsewhere === undefined) this.#end('failed', error)?.attemptOver(this);
    }, timeout);
  }

  /** Returns the owner and forgets it. */
  #end(state: 'succeeded' | 'failed' | 'dropped', result: unknown): AttemptOwner | undefined {
    const owner = this.#owner;
    this.#owner = undefined;
    this.state = state;
    this.#result = result;
    if (this.#timer !== undefined) {
      clearTimeout(this.#timer);
      this.#timer = undefined;
    }
    this.#trace?.settle(state !== 'succeeded', result);
    this.#trace = undefined; // An attempt that is dropped during the backoff ends a second time.
    return owner;
  }
}

/** Its listeners run in the context of the task that reads the signal, not of the timer or the call that aborts it. */
class SignalController extends AsyncResource {
  readonly #controller = new AbortController();

  constructor() {
    super('BackgroundTaskSignal');
  }

  get signal(): AbortSignal {
    return this.#controller.signal;
  }

  abort(reason: Error): void {
    this.runInAsyncScope(this.#controller.abort, this.#controller, reason);
  }
}
