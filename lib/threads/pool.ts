// The threads of one pool. piscina starts and ends them; which call runs when is decided here.

import { AsyncResource } from 'node:async_hooks';
import type { Worker } from 'node:worker_threads';
import { clearTimeout, setImmediate, setTimeout } from '../clock.js';
import { type CloseOptions, readCloseTimeout } from '../close-options.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isError, isObject } from '../foreign-value.js';
import { scope } from '../task/scope.js';
import { Call, type CallOwner, type Target } from './call.js';
import type { CallMessage, Reply, ThreadMessage } from './messages.js';
import { Piscina, type PiscinaOptions, type PiscinaPool } from './piscina.js';
import { Slots } from './slots.js';

/** The rest of the options is the pool's own. */
export type PoolOptions = Omit<PiscinaOptions, 'name' | 'atomics' | 'recordTiming' | 'workerData'>;

export class Pool implements CallOwner {
  readonly slots: Slots;
  readonly #options: PoolOptions;
  readonly #freeSlots: number[];
  /** Those that have a slot. */
  readonly #running = new Map<number, Call>();
  /** Those that wait for one, in their order, each with what gives it one. */
  readonly #waiting = new Map<Call, (slot: number) => void>();
  /** How many calls have not ended. */
  #open = 0;
  /** What the pool opens must not keep the AsyncLocalStorage stores of the request whose task is the first. */
  readonly #context = new AsyncResource('BackgroundTaskThreads');
  #piscina: PiscinaPool | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;
  #onDrained: (() => void) | undefined = undefined;

  constructor(options: PoolOptions) {
    this.#options = options;
    this.slots = Slots.for(options.maxThreads);
    this.#freeSlots = Array.from({ length: options.maxThreads }, (_, slot) => slot);
  }

  get threads(): readonly Worker[] {
    return this.#piscina?.threads ?? [];
  }

  /** Calls a function in a thread, as soon as one is free. */
  async call(target: Target, args: readonly unknown[]): Promise<unknown> {
    if (this.#closing !== undefined) {
      throw new BackgroundTasksError('ERR_TASKS_CLOSED', `task "${target.task}": its threads are closed`);
    }
    const call = new Call(target, args, scope.getStore()?.task, this);
    this.#open++;
    try {
      call.throwIfAborted(); // Before it waits for a thread.
      return await this.#run(call, this.#freeSlots.pop() ?? (await this.#wait(call)));
    } finally {
      call.over();
      if (--this.#open === 0) this.#onDrained?.();
    }
  }

  async close(options: CloseOptions): Promise<void> {
    const timeout = readCloseTimeout(options);
    this.#closing ??= this.#close();
    const timer = timeout === Number.POSITIVE_INFINITY ? undefined : setTimeout(() => this.#abandon(timeout), timeout);
    await this.#closing;
    clearTimeout(timer);
  }

  async #close(): Promise<void> {
    if (this.#open > 0) {
      await new Promise<void>((resolve) => {
        this.#onDrained = resolve;
      });
    }
    await this.#piscina?.destroy();
  }

  #abandon(timeout: number): void {
    for (const call of [...this.#waiting.keys(), ...this.#running.values()]) {
      const limit = `it had not ended when close() of its threads reached its timeout of ${timeout} ms`;
      call.abort(new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${call.task}" was abandoned: ${limit}`));
    }
  }

  #wait(call: Call): Promise<number> {
    return new Promise((resolve, reject) => {
      call.wait((reason) => {
        this.#waiting.delete(call);
        reject(reason);
      });
      this.#waiting.set(call, resolve);
    });
  }

  async #run(call: Call, slot: number): Promise<unknown> {
    try {
      return await this.#runOnce(call, slot);
    } finally {
      this.#release(slot);
    }
  }

  async #runOnce(call: Call, slot: number): Promise<unknown> {
    const message = call.begin(slot);
    this.#running.set(message.call, call);
    try {
      return await call.result(await this.#context.runInAsyncScope(this.#post, this, message, call));
    } catch (error) {
      if (!call.canBegin) throw error;
    } finally {
      this.#running.delete(message.call);
    }
    return this.#runOnce(call, slot);
  }

  /** Rejects with what the call fails with, once its thread has ended. */
  async #post(message: CallMessage, call: Call): Promise<Reply> {
    try {
      this.#piscina ??= this.#start();
      return await this.#piscina.run(message, { signal: call.stop });
    } catch (error) {
      throw await call.failure(error);
    }
  }

  #release(slot: number): void {
    const [next] = this.#waiting;
    if (next === undefined) {
      this.#freeSlots.push(slot);
      return;
    }
    const [call, take] = next;
    this.#waiting.delete(call);
    take(slot);
  }

  #start(): PiscinaPool {
    const piscina = new Piscina({
      ...this.#options,
      name: 'run',
      // With another value a thread stands still between two tasks: what one task has left behind goes on in the next one.
      atomics: 'disabled',
      recordTiming: false,
      workerData: this.slots.memory,
    });
    piscina.on('message', (message: unknown) => {
      if (isThreadMessage(message)) this.#running.get(message.call)?.heard(message);
    });
    // Not an error: its unread stack would keep the response alive whose task is the first.
    let lastError: unknown = 'it has ended before it has begun';
    piscina.on('error', (error: unknown) => {
      lastError = error;
      warnOf(error);
    });
    // At this moment the thread is still among the others, and its call has not ended.
    piscina.on('workerDestroy', () => setImmediate(() => this.#failUnstarted(lastError)));
    return piscina;
  }

  /** Each call needs a thread, and piscina starts none in place of one that could not start. */
  #failUnstarted(error: unknown): void {
    const live = [...this.#running.values()].filter(({ isStopped }) => !isStopped);
    const lacking = live.length - this.threads.length;
    for (const call of live.filter(({ hasBegun }) => !hasBegun).slice(0, Math.max(lacking, 0))) call.fail(error);
  }
}

/** Of something that a task has left behind, or before its first task. */
function warnOf(error: unknown): void {
  const what = isError(error) ? error.stack : inspectShort(error);
  process.emitWarning(`a thread of background tasks died between two tasks: ${what}`, 'BackgroundTasksWarning');
}

/** The modules of the tasks can post messages, too. */
function isThreadMessage(message: unknown): message is ThreadMessage {
  return isObject(message) && typeof Reflect.get(message, 'call') === 'number';
}
