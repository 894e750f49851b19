// The driver of BullMQ: stores tasks as jobs of one queue, and finds them.

import { Queue } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import { withDeadline } from '../../engine/deadline.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { Connection } from './connection.js';
import { dataOf, fields, optionsOf, recordOf, type StoredMessage } from './job.js';
import { Turns } from './turns.js';
import { BullmqWorker, defaultTiming, type Timing } from './worker.js';

export class BullmqDriver implements EngineDriver {
  readonly name = 'bullmq';
  readonly #options: RedisOptions;
  readonly #timing: Timing;
  readonly #connection: Connection;
  readonly #queue: Queue<StoredMessage>;
  readonly #turns = new Turns();
  readonly #workers = new Set<BullmqWorker>();

  constructor(name: string, options: RedisOptions, timing = defaultTiming) {
    this.#options = options;
    this.#timing = timing;
    // While Redis is away nothing is kept for later, and what was under way when the connection broke is not sent again.
    this.#connection = new Connection({ ...options, enableOfflineQueue: false, maxRetriesPerRequest: 0 });
    // BullMQ's check of the version would break the queue for good if Redis went away in the middle of it.
    this.#queue = new Queue(name, { connection: this.#connection, skipVersionCheck: true });
    this.#queue.on('error', ignore); // The connection knows it too, and BullMQ needs a listener.
  }

  trouble(): Error | undefined {
    return this.#connection.trouble;
  }

  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const data = dataOf(message);
    const options = optionsOf(message);
    await this.#queue.waitUntilReady();
    await this.#turns.next();
    // What was sent and not answered, in time or at all, may be stored although enqueue rejects.
    expired.throwIfAborted();
    const { id } = await this.#queue.add(message.name, data, options);
    return String(id);
  }

  async work(runner: MessageRunner): Promise<BullmqWorker> {
    const worker = new BullmqWorker(this.#queue.name, this.#options, this.#timing, runner, this.#workers);
    await worker.ready();
    return worker;
  }

  /** BullMQ would read the whole job, arguments and result. */
  async find(id: string, { result }: { result: boolean }): Promise<TaskRecord | undefined> {
    await this.#queue.waitUntilReady();
    const key = this.#queue.toKey(id);
    const answers = await this.#connection
      .multi()
      .hmget(key, ...(result ? fields : fields.slice(0, -1)))
      .zscore(this.#queue.toKey('completed'), id)
      .exists(`${key}:lock`)
      .exec();
    const [values, completedAt, locks] = (answers ?? []).map(([error, value]) => {
      if (error !== null) throw error;
      return value;
    });
    if (!Array.isArray(values)) return undefined;
    return recordOf(id, values, { isCompleted: completedAt !== null, isHeld: locks === 1 });
  }

  async close(): Promise<void> {
    await Promise.all([...this.#workers].map((worker) => worker.ended()));
    // It waits for the answers that are still due, which do not come while Redis is away.
    await withDeadline(() => this.#connection.quit()).catch(ignore);
    this.#connection.finish();
    await this.#queue.close();
  }
}

const ignore = (): void => {};
