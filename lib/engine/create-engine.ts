// createEngine(): the engine that users hold, made of a driver. It checks, serializes, sets deadlines, wakes workers and closes,
// once for all drivers.

import { BackgroundTasksError } from '../errors.js';
import { ignore } from '../foreign-value.js';
import { checkOptions, isBoolean } from '../options.js';
import { scope } from '../task/scope.js';
import type { SerializableArguments } from '../task/serializable.js';
import type { RemoteTask, Task } from '../task/task.js';
import { withDeadline } from './deadline.js';
import type { EngineDriver } from './driver.js';
import type { GetOptions, TaskEngine, TaskRecord, TaskWorker, WorkerOptions } from './engine.js';
import { isUuid } from './id.js';
import { isInTaskOf } from './inside.js';
import { messageOf } from './message.js';
import { MessageRunner } from './message-runner.js';
import { serializeError } from './serialize.js';
import { EngineWorker } from './worker.js';
import { WorkerGroup } from './worker-group.js';

/** See "Writing an engine" in docs/engines.md. */
export function createEngine(driver: EngineDriver): TaskEngine {
  return new Engine(driver);
}

/** For an option of a task, or a call, that an engine does not have. */
export function unsupported(engine: string, option: string, reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `${engine}: "${option}" is not possible: ${reason}`);
}

/** `what` failed: `the task could not be stored`. */
export function engineUnavailable(engine: string, what: string, cause: unknown): BackgroundTasksError {
  const reason = serializeError(cause).message; // A client may reject with anything.
  return new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `${engine}: ${what}: ${reason}`, { cause });
}

const notStored = 'the task could not be stored';
const notRead = 'the task could not be read';
const notStarted = 'the worker could not be started';

class Engine implements TaskEngine {
  readonly #driver: EngineDriver;
  readonly #workers = new WorkerGroup<EngineWorker>(this);
  readonly #calls = new Set<Promise<unknown>>();
  #closing: Promise<void> | undefined = undefined;
  #isClosed = false;

  constructor(driver: EngineDriver) {
    this.#driver = driver;
  }

  async enqueue<A extends readonly unknown[]>(
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<{ id: string }> {
    const message = messageOf(task, args);
    const id = await this.#call(notStored, (expired) => this.#driver.insert(message, expired));
    for (const worker of this.#workers) worker.wake();
    return { id };
  }

  async work(tasks: readonly Task[], options?: WorkerOptions): Promise<TaskWorker> {
    const runner = new MessageRunner(tasks, options, this.#workers, this);
    const driver = this.#driver;
    if (driver.work === undefined) throw this.#unsupported('work', 'work()');
    const begin = driver.work.bind(driver, runner);
    const worker = new EngineWorker(runner, this.#workers);
    try {
      await this.#call(notStarted, () => worker.start(begin));
    } catch (error) {
      await worker.close();
      throw error;
    }
    if (this.#closing !== undefined) {
      await worker.close();
      throw this.#closedError(notStarted);
    }
    return worker;
  }

  async get(id: string, options: GetOptions = {}): Promise<TaskRecord | undefined> {
    checkOptions('get()', options, { result: isBoolean });
    if (this.#driver.find === undefined) throw this.#unsupported('find', 'get()');
    const { result = true } = options;
    // Ids are UUIDs, which may be written in upper case. Nothing else is asked for.
    const known = isUuid(String(id)) ? String(id).toLowerCase() : undefined;
    return this.#call(notRead, async (expired) =>
      known === undefined ? undefined : this.#driver.find?.(known, { result }, expired),
    );
  }

  close(): Promise<void> {
    // Outside of any task: what is closed here waits for the task that has called, if one has.
    this.#closing ??= scope.run(undefined, () => this.#close());
    if (!isInTaskOf(this)) return this.#closing;
    void ignore(this.#closing);
    return Promise.resolve();
  }

  async #close(): Promise<void> {
    // Running tasks may enqueue others until they have ended.
    await Promise.all([...this.#workers].map((worker) => worker.close({ timeout: Number.POSITIVE_INFINITY })));
    this.#isClosed = true;
    await Promise.allSettled(this.#calls);
    await this.#driver.close();
  }

  async #call<T>(failure: string, call: (expired: AbortSignal) => Promise<T>): Promise<T> {
    if (this.#isClosed) throw this.#closedError(failure);
    const answer = withDeadline(call);
    this.#calls.add(answer);
    try {
      return await answer;
    } catch (error) {
      if (error instanceof BackgroundTasksError) throw error;
      throw engineUnavailable(this.#driver.name, failure, this.#driver.trouble?.() ?? error);
    } finally {
      this.#calls.delete(answer);
    }
  }

  #unsupported(method: 'work' | 'find', call: string): BackgroundTasksError {
    return unsupported(this.#driver.name, call, this.#driver.instead?.[method] ?? 'this engine does not have it');
  }

  #closedError(failure: string): BackgroundTasksError {
    return engineUnavailable(this.#driver.name, failure, new Error('the engine is closed'));
  }
}
