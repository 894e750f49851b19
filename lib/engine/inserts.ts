// What enqueue() and enqueueMany() have in common, in a transaction of the application and out of it.

import { BackgroundTasksError } from '../errors.js';
import { ignore, inspectShort } from '../foreign-value.js';
import { definitionOf } from '../task/task.js';
import { type Call, unsupported } from './calls.js';
import type { EngineDriver } from './driver.js';
import { newId } from './id.js';
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

  /** Calls the store at once: the caller's transaction may end in this turn. */
  async one(task: unknown, args: readonly unknown[]): Promise<string> {
    let message: TaskMessage;
    try {
      message = messageOf(task, args);
    } catch (error) {
      return this.#refuse(task, [args], error);
    }
    return this.#insert(message);
  }

  async many(task: unknown, argLists: readonly (readonly unknown[])[]): Promise<readonly string[]> {
    if (!Array.isArray(argLists) || !argLists.every(Array.isArray)) {
      const message = `enqueueMany(): the second argument must be an array of lists of arguments, not ${inspectShort(argLists)}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
    }
    let messages: TaskMessage[];
    let insertMany: NonNullable<EngineDriver['insertMany']>;
    try {
      messages = argLists.map((args) => messageOf(task, args, 'enqueueMany()'));
      insertMany = this.#insertMany();
    } catch (error) {
      return this.#refuse(task, argLists, error);
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

  /** What does not get to the store is published as well. */
  async #refuse(task: unknown, argLists: readonly (readonly unknown[])[], error: unknown): Promise<never> {
    const name = definitionOf(task)?.name;
    if (name !== undefined) {
      const refused = argLists.map((args) => ({ id: newId(), name, args }));
      await ignore(traceEnqueue(this.#driver.name, refused, () => Promise.reject(error)));
    }
    throw error;
  }

  #insertMany(): NonNullable<EngineDriver['insertMany']> {
    const insertMany = this.#inserter.insertMany?.bind(this.#inserter);
    if (insertMany !== undefined) return insertMany;
    const reason = this.#driver.instead?.insertMany ?? 'this engine stores one task at a time: call enqueue()';
    throw unsupported(this.#driver.name, 'enqueueMany()', reason);
  }

  async #insert(message: TaskMessage): Promise<string> {
    const [id = message.id] = await traceEnqueue(this.#driver.name, [message], async ([traced = message]) => [
      await this.#call(notStored, (expired) => this.#inserter.insert(traced, expired)),
    ]);
    return id;
  }
}
