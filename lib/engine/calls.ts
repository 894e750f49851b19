// The calls of an engine to its driver: each has a deadline, fails with ERR_ENGINE_UNAVAILABLE, and is waited for at the end.

import { BackgroundTasksError } from '../errors.js';
import { withDeadline } from './deadline.js';
import type { EngineDriver, OptionalMethod } from './driver.js';
import { serializeError } from './serialize.js';

/** For an option of a task, or a call, that an engine does not have. */
export function unsupported(engine: string, option: string, reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `${engine}: "${option}" is not possible: ${reason}`);
}

/** `what` failed: `the task could not be stored`. */
export function engineUnavailable(engine: string, what: string, cause: unknown): BackgroundTasksError {
  const reason = serializeError(cause).message; // A client may reject with anything.
  return new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', `${engine}: ${what}: ${reason}`, { cause });
}

class EngineClosed extends Error {}

/** Whether a call has failed since its engine is closed, and so will all others. */
export function isOfClosedEngine(error: unknown): boolean {
  return error instanceof BackgroundTasksError && error.cause instanceof EngineClosed;
}

/** `expired` is aborted at the deadline. */
export type Call<T> = (expired: AbortSignal) => Promise<T>;

export class Calls {
  readonly #driver: EngineDriver;
  readonly #open = new Set<Promise<unknown>>();
  #isClosed = false;

  constructor(driver: EngineDriver) {
    this.#driver = driver;
  }

  /** `failure` says what has failed where the call does. */
  async make<T>(failure: string, call: Call<T>): Promise<T> {
    try {
      return await this.within(failure, call);
    } catch (error) {
      if (error instanceof BackgroundTasksError) throw error;
      throw engineUnavailable(this.#driver.name, failure, this.#driver.trouble?.() ?? error);
    }
  }

  /** Of a call in a transaction of the application: what that fails with arrives as it is. */
  async within<T>(failure: string, call: Call<T>): Promise<T> {
    if (this.#isClosed) throw this.closedError(failure);
    const answer = withDeadline(call);
    this.#open.add(answer);
    try {
      return await answer;
    } finally {
      this.#open.delete(answer);
    }
  }

  /** A call of many steps, each with a deadline of its own. Resolves with the sum of what they yield. */
  async count(failure: string, begin: (expired: AbortSignal) => AsyncIterable<number>): Promise<number> {
    const expired = new AbortController();
    const steps = begin(expired.signal)[Symbol.asyncIterator]();
    let sum = 0;
    try {
      while (true) {
        const step = await this.make(failure, () => steps.next());
        if (step.done === true) return sum;
        sum += step.value;
      }
    } catch (error) {
      expired.abort();
      throw error;
    }
  }

  /** A method of the driver that it need not have, or what to use instead. */
  method<Name extends OptionalMethod>(name: Name, call: string): NonNullable<EngineDriver[Name]> {
    const method = this.#driver[name];
    if (method !== undefined) return method;
    const reason = this.#driver.instead?.[name] ?? 'this engine does not have it';
    throw unsupported(this.#driver.name, call, reason);
  }

  closedError(failure: string): BackgroundTasksError {
    return engineUnavailable(this.#driver.name, failure, new EngineClosed('the engine is closed'));
  }

  /** Takes no more calls, and waits for those under way. */
  async close(): Promise<void> {
    this.#isClosed = true;
    await Promise.allSettled(this.#open);
  }
}
