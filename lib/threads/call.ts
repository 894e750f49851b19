// One call of a task's function, on its way through a thread.

import { EventEmitter, setMaxListeners } from 'node:events';
import type { Worker } from 'node:worker_threads';
import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isError, isObject } from '../foreign-value.js';
import { Attempt } from '../task/attempt.js';
import type { TaskContext } from '../task/scope.js';
import type { TaskInfo } from '../task/types.js';
import { isSurelyClonable, whyUnclonable } from './clonable.js';
import { unboxError } from './error-box.js';
import type { CallMessage, Reply, ThreadMessage } from './messages.js';
import { notClonable } from './not-clonable.js';
import { abortReasons, type Slots } from './slots.js';

/** Which function is called. */
export interface Target {
  readonly task: string;
  /** The path of the file. */
  readonly module: string;
  readonly exported: string;
}

/** The pool, as its calls see it. */
export interface CallOwner {
  readonly slots: Slots;
  /** Those that have not been told to end. */
  readonly threads: readonly Worker[];
}

/** How long a thread may take to end by itself once its signal is aborted, in ms. */
const patience = 1000;

/** How long a thread may take to begin, in ms. It may have to start, and to load a compiler of TypeScript. */
const startTimeout = 30_000;

/** And then, since the event loop may have stood still, and not the thread. In ms. */
const grace = 1000;

/** How often a call is posted at most, if no thread has begun with it. */
const mostPosts = 5;

let calls = 0;

export class Call {
  /** Emits `abort` when piscina is to terminate the thread. It takes this for a signal, and it is lighter than one. */
  readonly stop = new EventEmitter();
  readonly #target: Target;
  readonly #owner: CallOwner;
  #args: readonly unknown[];
  /** Whether nobody else can change the arguments. */
  #areKept = false;
  /** Undefined for a call outside of tasks. */
  readonly #attempt: TaskContext | undefined;
  readonly #signal: AbortSignal | undefined;
  readonly #onBegin: (() => void) | undefined;
  /** Undefined until a thread is free. */
  #slot: number | undefined = undefined;
  /** Why it is to end, once it is. */
  #reason: { readonly reason: unknown } | undefined = undefined;
  #onAbort: ((reason: unknown) => void) | undefined = undefined;
  #timer: NodeJS.Timeout | undefined = undefined;
  /** What it fails with. Set when its thread is told to end. */
  #failure: { readonly error: unknown; readonly exited: Promise<unknown> | undefined } | undefined = undefined;
  /** Each post has a number of its own: a thread that is late must not take the next one for its own. */
  #number = 0;
  #posts = 0;
  /** Whether a thread has stood still. A second one is not waited for. */
  #wasLate = false;
  #isAnswered = false;
  /** The result, if it was posted on its own. */
  readonly #posted: unknown[] = [];
  #onPosted: (() => void) | undefined = undefined;

  constructor(target: Target, args: readonly unknown[], attempt: TaskContext | undefined, owner: CallOwner) {
    this.#target = target;
    this.#args = args;
    this.#attempt = attempt;
    this.#owner = owner;
    this.#onBegin = attempt instanceof Attempt ? attempt.onBegin : undefined;
    this.#signal = attempt?.signal;
    if (this.#signal !== undefined) this.#follow(this.#signal);
  }

  /** For a call that finds no free thread. Its arguments are those of this moment. */
  wait(onAbort: (reason: unknown) => void): void {
    this.#args = copy(this.#args, this.#target.task);
    this.#areKept = true;
    this.#onAbort = onAbort;
  }

  throwIfAborted(): void {
    if (this.#reason !== undefined) throw this.#reason.reason;
  }

  /** Throws if the call was aborted. Called once more if {@link canBegin} says so. */
  begin(slot: number): CallMessage {
    this.throwIfAborted();
    if (!this.#areKept && (!this.#args.some(isMutable) || isSurelyClonable(this.#args))) {
      this.#args = copy(this.#args, this.#target.task);
      this.#areKept = true;
    }
    const call = ++calls;
    this.#number = call;
    this.#posts++;
    this.#slot = slot;
    this.#owner.slots.take(slot, call);
    this.#onAbort = (reason) => this.#end(reason, slot);
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#timer = setTimeout(() => this.#late(slot), grace);
    }, startTimeout);
    const { task, module, exported } = this.#target;
    return {
      call,
      slot,
      task,
      module,
      exported,
      args: this.#args,
      attempt: this.#attempt && infoOf(this.#attempt),
      isTimed: this.#onBegin !== undefined,
    };
  }

  get task(): string {
    return this.#target.task;
  }

  /** Whether code of the task may run in a thread. */
  get hasBegun(): boolean {
    return this.#slot !== undefined && this.#owner.slots.hasBegun(this.#slot, this.#number);
  }

  /** Whether to post it once more: no thread has begun with it, and its arguments are kept. */
  get canBegin(): boolean {
    return this.#areKept && this.#posts < mostPosts && !this.hasBegun && !this.isStopped;
  }

  /** Whether its thread has been told to end. */
  get isStopped(): boolean {
    return this.#failure !== undefined;
  }

  abort(reason: unknown): void {
    if (this.#reason !== undefined) return;
    this.#reason = { reason };
    this.#onAbort?.(reason);
  }

  /** Called with what a thread says of this call. */
  heard(message: ThreadMessage): void {
    switch (message.is) {
      case 'begun':
        this.#onBegin?.();
        break;
      case 'progress':
        // The reply has the last one, and comes by another port: a message may arrive behind it.
        if (!this.#isAnswered) this.#progressed(message.json);
        break;
      case 'posted':
        this.#posted.push(message.value);
        this.#onPosted?.();
    }
  }

  /** Returns what the function returned, or throws what it threw. */
  async result(reply: Reply): Promise<unknown> {
    this.#isAnswered = true;
    this.#progressed(reply.progress);
    switch (reply.is) {
      case 'value':
        return reply.value;
      case 'posted':
        if (this.#posted.length === 0) await this.#valuePosted();
        return this.#posted[0];
      case 'error':
        throw unboxError(reply.error);
    }
  }

  /** What the call fails with where piscina has no reply. Resolves when the thread has ended. */
  async failure(error: unknown): Promise<unknown> {
    if (this.#failure !== undefined) {
      await this.#failure.exited;
      return this.#failure.error;
    }
    const { task } = this.#target;
    const why = this.hasBegun ? undefined : whyUnclonable(this.#args, 'args');
    return why === undefined ? threadDied(task, error) : notClonable(task, why, error);
  }

  /** The thread that it waited for could not start. Does nothing if another one has begun with it. */
  fail(error: unknown): void {
    if (this.#slot === undefined || !this.#owner.slots.revoke(this.#slot, this.#number)) return;
    this.#stop(threadDied(this.#target.task, error), undefined);
  }

  over(): void {
    clearTimeout(this.#timer);
    this.#onAbort = undefined;
    this.#signal?.removeEventListener('abort', this.#aborted);
  }

  #follow(signal: AbortSignal): void {
    setMaxListeners(0, signal); // One task may call many others. Node.js 20 would warn of ten listeners.
    signal.addEventListener('abort', this.#aborted);
    if (signal.aborted) this.#aborted();
  }

  readonly #aborted = (): void => this.abort(this.#signal?.reason);

  #end(reason: unknown, slot: number): void {
    const { slots } = this.#owner;
    if (slots.revoke(slot, this.#number)) {
      this.#stop(reason, undefined);
      return;
    }
    slots.abort(slot, kindOf(reason));
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      const thread = this.#owner.threads.find(({ threadId }) => threadId === slots.threadOf(slot));
      this.#stop(reason, thread && new Promise((resolve) => thread.once('exit', resolve)));
    }, patience);
  }

  #late(slot: number): void {
    if (!this.#owner.slots.revoke(slot, this.#number)) return;
    const isFirst = !this.#wasLate;
    this.#wasLate = true;
    if (isFirst && this.canBegin) this.stop.emit('abort');
    else this.fail(new Error(`no thread began with it within ${startTimeout} ms`));
  }

  #stop(error: unknown, exited: Promise<unknown> | undefined): void {
    this.#failure = { error, exited };
    this.stop.emit('abort');
  }

  #valuePosted(): Promise<void> {
    return new Promise((resolve) => {
      this.#onPosted = resolve;
    });
  }

  #progressed(json: string | undefined): void {
    if (json !== undefined) this.#attempt?.progress(JSON.parse(json));
  }
}

function infoOf({ id, name, attempt }: TaskContext): TaskInfo {
  return { id, name, attempt };
}

function copy(args: readonly unknown[], task: string): readonly unknown[] {
  if (!args.some(isMutable)) return args;
  try {
    return structuredClone(args);
  } catch (error) {
    throw notClonable(task, whyUnclonable(args, 'args'), error);
  }
}

/** A symbol cannot be cloned, which structuredClone says. */
function isMutable(argument: unknown): boolean {
  return isObject(argument) || typeof argument === 'symbol';
}

function kindOf(reason: unknown): number {
  if (reason instanceof BackgroundTasksError) return abortReasons.abandoned;
  return isError(reason) && reason.name === 'TimeoutError' ? abortReasons.timeout : abortReasons.cancelled;
}

function threadDied(task: string, cause: unknown): BackgroundTasksError {
  const said = isError(cause) ? cause.message : cause;
  const why = typeof said === 'string' ? said : inspectShort(said);
  return new BackgroundTasksError('ERR_THREAD_DIED', `task "${task}" has lost its thread: ${why}`, { cause });
}
