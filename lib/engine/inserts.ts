// What enqueue() and enqueueMany() have in common, in a transaction of the application and out of it.

import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { type Call, unsupported } from './calls.js';
import type { EngineDriver } from './driver.js';
import { messageOf, type TaskMessage } from './message.js';
import { traceEnqueue } from './tracing.js';

const notStored = 'the task could not be stored';

type Inserter = Pick<EngineDriver, 'insert' | 'insertMany'>;

type MakeCall = <T>(failure: string, call: Call<T>) => Promise<T>;

export class Inserts {
  readonly #driver: EngineDriver;
  readonly #inserter: Inserter;
  readonly #call: MakeCall;

  /** `inserter`: the driver, or what it has made of a transaction. */
  constructor(driver: EngineDriver, inserter: Inserter, call: MakeCall) {
    this.#driver = driver;
    this.#inserter = inserter;
    this.#call = call;
  }

  async one(task: unknown, args: readonly unknown[]): Promise<string> {
    return this.#insert(messageOf(task, args));
  }

  async many(task: unknown, argLists: readonly (readonly unknown[])[]): Promise<readonly string[]> {
    if (!Array.isArray(argLists) || !argLists.every(Array.isArray)) {
      const message = `enqueueMany(): the second argument must be an array of lists of arguments, not ${inspectShort(argLists)}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
    }
    const messages = argLists.map((args) => messageOf(task, args, 'enqueueMany()'));
    const insertMany = this.#inserter.insertMany?.bind(this.#inserter);
    if (insertMany === undefined) {
      const reason = this.#driver.instead?.insertMany ?? 'this engine stores one task at a time: call enqueue()';
      throw unsupported(this.#driver.name, 'enqueueMany()', reason);
    }
    const [first] = messages;
    if (first === undefined) return [];
    if (first.key === undefined) {
      return traceEnqueue(this.#driver.name, messages, (all) =>
        this.#call(notStored, (expired) => insertMany(all, expired)),
      );
    }
    // All have the same key, and so are one task.
    const message = first.whileRunning === 'again' ? (messages.at(-1) ?? first) : first;
    const id = await this.#insert(message);
    return messages.map(() => id);
  }

  async #insert(message: TaskMessage): Promise<string> {
    const [id = message.id] = await traceEnqueue(this.#driver.name, [message], async ([traced = message]) => [
      await this.#call(notStored, (expired) => this.#inserter.insert(traced, expired)),
    ]);
    return id;
  }
}
