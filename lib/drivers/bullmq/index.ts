// bullmq(): an engine on BullMQ, for Redis and what speaks its protocol: Valkey, Dragonfly. Workers: bullmq-worker.ts.

import { type Job, type JobsOptions, Queue, type RedisOptions } from 'bullmq';
import { type RedisOptions as ClientOptions, Redis } from 'ioredis';
import { createEngine, unsupported } from '../../engine/create-engine.js';
import { withDeadline } from '../../engine/deadline.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskEngine, TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { BackgroundTasksError } from '../../errors.js';
import { isAwaitable } from '../../foreign-value.js';
import { type Check, checkOptions } from '../../options.js';
import { Connection } from './connection.js';
import { attemptOf, BullmqWorker, errorOf, type StoredMessage } from './worker.js';

export interface BullmqOptions {
  /**
   * ioredis's options, or a client of ioredis whose options are used: the engine makes connections of its own. Not possible
   * are a `Cluster`, and a `keyPrefix`, which BullMQ's scripts do not see.
   */
  connection: RedisOptions | { readonly options: RedisOptions };
  /** Name of BullMQ's queue; workers with other tasks should have another one. Default `'express-background-tasks'`. */
  queue?: string | undefined;
}

/**
 * An engine on BullMQ 6 and ioredis. A task whose worker died runs again within 20 seconds. A task is stored as durably as
 * Redis is configured to store anything: see its `appendonly` and `appendfsync`.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
 * @example
 * app.use(backgroundTasks({ engine: bullmq({ connection: { host: 'localhost', port: 6379 } }) }));
 */
export function bullmq(options: BullmqOptions): TaskEngine {
  checkOptions<BullmqOptions>('bullmq()', options, { connection: isConnection, queue: isQueueName });
  return createEngine(new BullmqDriver(options.queue ?? 'express-background-tasks', optionsOf(options.connection)));
}

const isConnection: Check = (value) => (isAwaitable(value) ? undefined : "ioredis's options, or a client of ioredis");
const isQueueName: Check = (value) =>
  typeof value === 'string' && /^[^:]+$/.test(value) ? undefined : 'a string that is not empty and has no ":"';

/** Complete, as ioredis reads them. */
function optionsOf(connection: BullmqOptions['connection'] | undefined): ClientOptions {
  if (connection === undefined) throw badConnection('is missing');
  // The options of any other client do not say where its Redis is, and would lead to the one of this machine.
  const given: object = connection;
  if ('connect' in given && !('isCluster' in given && given.isCluster === false)) {
    throw badConnection("must be ioredis's options or its client Redis, not a Cluster or a client of another package");
  }
  const options: RedisOptions = isAwaitable(connection.options) ? connection.options : connection;
  if (options.keyPrefix)
    throw badConnection('has a "keyPrefix", which BullMQ does not support: name a "queue" instead');
  const { url, ...rest } = { host: '127.0.0.1', retryStrategy, ...options, lazyConnect: true };
  const client = url === undefined ? new Redis(rest) : new Redis(url, rest);
  const { db } = client.options;
  if (!Number.isInteger(db) || Number(db) < 0) throw badConnection('has a "db" that is no whole number from 0');
  return client.options;
}

function retryStrategy(times: number): number {
  return Math.min(times * 200, 2000);
}

function badConnection(reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `bullmq(): "connection" ${reason}`);
}

class BullmqDriver implements EngineDriver {
  readonly name = 'bullmq';
  readonly #options: ClientOptions;
  readonly #connection: Connection;
  readonly #queue: Queue<StoredMessage>;

  constructor(name: string, options: ClientOptions) {
    this.#options = options;
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
    const { name, json, timeout, retries } = message;
    if (/[\ud800-\udfff]/u.test(name)) throw unsupported('bullmq', 'name', 'it has half a surrogate pair');
    const data: StoredMessage = { args: json, timeout, retries, unused: 0 };
    const options = jobOptions(message);
    await this.#queue.waitUntilReady();
    // What was sent and not answered, in time or at all, may be stored although enqueue rejects.
    expired.throwIfAborted();
    const { id } = await this.#queue.add(name, data, options);
    return String(id);
  }

  async work(runner: MessageRunner): Promise<BullmqWorker> {
    const worker = new BullmqWorker(this.#queue.name, this.#options, runner);
    await worker.ready();
    return worker;
  }

  async find(id: string): Promise<TaskRecord | undefined> {
    const state = await this.#queue.getJobState(id);
    const job: Job<StoredMessage> | undefined = await this.#queue.getJob(id);
    return job && recordOf(id, job, state === 'active');
  }

  async close(): Promise<void> {
    // It waits for the answers that are still due, which do not come while Redis is away.
    await withDeadline(() => this.#connection.quit()).catch(ignore);
    this.#connection.disconnect();
    await this.#queue.close();
  }
}

const ignore = (): void => {};

const kept = { age: 7 * 24 * 60 * 60 };
/** BullMQ's priorities run from 1, the most urgent, to twice this; a job without comes before all that have one. */
const middle = 2 ** 20;

function jobOptions({ id, retries, delay = 0, priority = 0, key }: TaskMessage): JobsOptions {
  if (Math.abs(priority) >= middle) {
    throw unsupported('bullmq', 'priority', `it must be more than ${-middle} and less than ${middle}`);
  }
  return {
    jobId: id,
    priority: middle - priority,
    removeOnComplete: kept,
    removeOnFail: kept,
    ...(delay > 0 && { delay: Math.ceil(delay) }),
    // The worker takes the backoff from the message.
    ...(retries !== undefined && { attempts: retries.limit + 1, backoff: { type: 'custom' } }),
    // Freed when the job is over. In JSON any text differs from any other, also in UTF-8.
    ...(key !== undefined && { deduplication: { id: JSON.stringify(key) } }),
  };
}

/** In what is over, only a task that has succeeded has a value. */
function recordOf(id: string, job: Job<StoredMessage>, isRunning: boolean): TaskRecord {
  const { name, timestamp, processedOn, finishedOn, failedReason } = job;
  const attempts = attemptOf(job);
  const record: TaskRecord = {
    id,
    name,
    state: isRunning ? 'running' : 'queued',
    attempts,
    enqueuedAt: new Date(timestamp),
  };
  if (processedOn !== undefined && attempts > 0) record.startedAt = new Date(processedOn);
  if (finishedOn === undefined) return record;
  record.finishedAt = new Date(finishedOn);
  const value: unknown = job.returnvalue;
  record.state = typeof value === 'string' ? 'succeeded' : 'failed';
  if (record.state === 'failed') record.error = errorOf(failedReason);
  else if (typeof value === 'string' && value !== '') record.result = JSON.parse(value);
  return record;
}
