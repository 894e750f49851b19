// bullmq(): an engine on BullMQ, for Redis and what speaks its protocol: Valkey, Dragonfly.

import type { RedisOptions } from 'bullmq';
import { type RedisOptions as ClientOptions, Redis } from 'ioredis';
import { createEngine } from '../../engine/create-engine.js';
import type { TaskEngine } from '../../engine/engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { isAwaitable } from '../../foreign-value.js';
import { type Check, checkOptions } from '../../options.js';
import { BullmqDriver } from './driver.js';

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
