// How tasks get into a queue: one by BullMQ itself, and where it cannot do what is asked for by a script.

import type { Queue } from 'bullmq';
import { nextTurn } from '../../clock.js';
import type { TaskMessage } from '../../engine/message.js';
import { TimeSlice } from '../../time-slice.js';
import type { Connection } from './connection.js';
import { dataOf, deduplicationIdOf, lastingOptionsOf, optionsOf, type StoredMessage, storedPriorityOf } from './job.js';
import type { Scripts } from './scripts/index.js';
import { Turns } from './turns.js';

export class Inserts {
  readonly #queue: Queue<StoredMessage>;
  readonly #connection: Connection;
  readonly #scripts: Scripts;
  readonly #turns = new Turns();

  constructor(queue: Queue<StoredMessage>, connection: Connection, scripts: Scripts) {
    this.#queue = queue;
    this.#connection = connection;
    this.#scripts = scripts;
  }

  async one(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const data = dataOf(message);
    const options = optionsOf(message);
    await this.#queue.waitUntilReady();
    await this.#turns.next();
    // What was sent and not answered, in time or at all, may be stored although enqueue rejects.
    expired.throwIfAborted();
    if (message.whileRunning === 'again') return this.#again(message, expired);
    const { id = message.id } = await this.#queue.add(message.name, data, options);
    return message.key === undefined || id === message.id ? id : this.#first(id);
  }

  /** All of them or none, in one script. BullMQ's own way to add many may store a part of them. */
  async many(messages: readonly TaskMessage[], expired: AbortSignal): Promise<string[]> {
    const [first] = messages;
    if (first === undefined) return [];
    const args = settingsOf(first);
    const slice = new TimeSlice();
    slice.begin();
    for (const message of messages) {
      args.push(message.id, JSON.stringify(dataOf(message)));
      if (!slice.isOver()) continue;
      await nextTurn();
      slice.begin();
    }
    await this.#queue.waitUntilReady();
    expired.throwIfAborted();
    await this.#scripts.run('insertMany', args);
    return messages.map(({ id }) => id);
  }

  /** Stores one more where one runs. Where none is live any more, it is one like any other. */
  async #again(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const { id, key = '' } = message;
    while (true) {
      const args = [...settingsOf(message), id, JSON.stringify(dataOf(message)), deduplicationIdOf(key)];
      const live = await this.#scripts.run('again', args);
      if (typeof live === 'string') return live;
      expired.throwIfAborted();
      const added = await this.#queue.add(message.name, dataOf(message), optionsOf(message));
      if (added.id === id) return id;
    }
  }

  /** Of two that are live and have one key, the one that runs. */
  async #first(id: string): Promise<string> {
    const key = this.#queue.toKey(id);
    const look = this.#connection.multi().zscore(this.#queue.toKey('waiting-children'), id).hget(key, 'tasks:behind');
    const [[, place] = [], [, ahead] = []] = (await look.exec()) ?? [];
    return typeof place === 'string' && typeof ahead === 'string' ? ahead : id;
  }
}

/** As the scripts take them: what all tasks have in common that are enqueued at once. */
function settingsOf(message: TaskMessage): (string | number)[] {
  const options = JSON.stringify(lastingOptionsOf(message));
  return [message.name, options, Math.ceil(message.delay ?? 0), storedPriorityOf(message)];
}
