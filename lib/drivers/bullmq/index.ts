/**
 * An engine on BullMQ, for Redis and what speaks its protocol: Valkey, Dragonfly.
 *
 * @module bullmq
 */

import type { RedisOptions, Telemetry } from 'bullmq';
import { type RedisOptions as ClientOptions, Redis } from 'ioredis';
import { createEngine } from '../../engine/create-engine.js';
import type { TaskEngine } from '../../engine/engine.js';
import { serializeError } from '../../engine/serialize.js';
import { BackgroundTasksError } from '../../errors.js';
import { inspectShort, isObject } from '../../foreign-value.js';
import { type Check, type Checks, checkOptions, isCount, isDelay, isText } from '../../options.js';
import { BullmqDriver } from './driver.js';
import { defaultTiming } from './worker.js';

export interface BullmqOptions {
  /**
   * ioredis's options, or a client of ioredis whose options are used: the engine makes connections of its own. Not possible
   * are a `Cluster`, and a `keyPrefix`, which BullMQ's scripts do not see.
   */
  connection: RedisOptions | { readonly options: RedisOptions };
  /** Name of BullMQ's queue; workers with other tasks should have another one. Default `'express-background-tasks'`. */
  queue?: string | undefined;
  /**
   * Given to BullMQ's queue and workers as it is: it traces their own work, such as `new BullMQOtel('tasks')` of bullmq-otel. For
   * the trace from a request to its tasks it is not needed: see docs/monitoring.md.
   */
  telemetry?: Telemetry | undefined;
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
  checkOptions<BullmqOptions>('bullmq()', options, {
    connection: isConnection,
    queue: isQueueName,
    telemetry: isTelemetry,
  });
  const { queue = 'express-background-tasks', connection, telemetry } = options;
  return createEngine(
    new BullmqDriver(queue, readConnection(connection), { ...defaultTiming, ...(telemetry && { telemetry }) }),
  );
}

const isConnection: Check = (value) =>
  typeof value === 'object' && value !== null && !Array.isArray(value)
    ? undefined
    : "ioredis's options, or a client of ioredis";
const isQueueName: Check = (value) =>
  typeof value === 'string' && /^[^:]+$/.test(value) ? undefined : 'a string that is not empty and has no ":"';

const isTelemetry: Check = (value) =>
  isObject(value) && 'tracer' in value && 'contextManager' in value
    ? undefined
    : "BullMQ's Telemetry, such as that of bullmq-otel";

/** Of those options of ioredis that make it fail later on. */
const connectionChecks: Partial<Checks<ClientOptions>> = {
  host: isText,
  port: (value) =>
    Number.isInteger(value) && Number(value) >= 0 && Number(value) < 65_536
      ? undefined
      : 'a whole number from 0 to 65535',
  db: isCount,
  connectTimeout: isDelay,
  commandTimeout: isDelay,
  sentinels: (value) => (value === null || Array.isArray(value) ? undefined : 'a list'),
};

/** Complete, as ioredis reads them. */
function readConnection(connection: BullmqOptions['connection'] | undefined): ClientOptions {
  if (connection === undefined) throw badConnection('is missing');
  // The options of any other client do not say where its Redis is, and would lead to the one of this machine.
  const given: object = connection;
  if ('connect' in given && !('isCluster' in given && given.isCluster === false)) {
    throw badConnection("must be ioredis's options or its client Redis, not a Cluster or a client of another package");
  }
  const options: RedisOptions = isObject(connection.options) ? connection.options : connection;
  if (options.keyPrefix)
    throw badConnection('has a "keyPrefix", which BullMQ does not support: name a "queue" instead');
  const read = parse({ host: '127.0.0.1', retryStrategy, ...options, lazyConnect: true });
  for (const [name, check] of Object.entries(connectionChecks)) {
    const value: unknown = Reflect.get(read, name);
    const expected = value === undefined ? undefined : check(value);
    if (expected !== undefined)
      throw badConnection(`has a "${name}" that must be ${expected}, not ${inspectShort(value)}`);
  }
  return read;
}

function parse({ url, ...options }: RedisOptions): ClientOptions {
  const isOther = typeof url === 'string' ? /^(?!rediss?:)[a-z]+:\/\//i.test(url) : url !== undefined;
  if (isOther) throw badConnection('has a "url" that must begin with redis:// or rediss://');
  try {
    return (url === undefined ? new Redis(options) : new Redis(url, options)).options;
  } catch (error) {
    throw badConnection(`is refused by ioredis: ${serializeError(error).message}`);
  }
}

function retryStrategy(times: number): number {
  return Math.min(times * 200, 2000);
}

function badConnection(reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `bullmq(): "connection" ${reason}`);
}
