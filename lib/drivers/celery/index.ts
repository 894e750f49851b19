/**
 * Sends tasks to Celery's workers, which run in Python, and reads their results.
 *
 * @module celery
 */

import { unsupported } from '../../engine/calls.js';
import { createEngine } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskEngine } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import { checkOptions, isText } from '../../options.js';
import { AmqpTransport } from './amqp.js';
import { type CeleryTransport, celeryMessage } from './message.js';
import { checkQueue, isQueueArguments, isRabbitmqQueue, isRedisQueue } from './queue.js';
import { RedisTransport } from './redis.js';
import { RedisClient } from './redis-client.js';
import { CeleryResults } from './result.js';
import { isRabbitmq, rabbitmqSchemes, readUrl, redisSchemes } from './url.js';

export { type Kwargs, kwargs } from './kwargs.js';

export interface CeleryOptions {
  /**
   * Celery's `broker_url`: `amqp://` or `amqps://` for RabbitMQ, which needs the package amqplib; `redis://` or `rediss://`
   * for Redis, which needs ioredis. The path is the virtual host, or the number of the Redis database, which is 0 if there is
   * none.
   */
  broker: string;
  /** The queue that the workers take tasks from. Default `'celery'`, as in Celery. */
  queue?: string | undefined;
  /**
   * RabbitMQ only: the arguments with which the workers declare the queue. `{ 'x-max-priority': 10 }` makes `priority`
   * possible. Default none, as in Celery.
   */
  queueArguments?: Readonly<Record<string, unknown>> | undefined;
  /** Celery's `result_backend`, `redis://` or `rediss://`, which `get` reads. Default none: `get` rejects. */
  backend?: string | undefined;
  /** @deprecated The name of `backend` in 0.1.0. */
  resultBackend?: string | undefined;
}

/**
 * Sends tasks to Celery's workers, as a Celery client in Python does. Each task is a `task(name)` without a handler. It can
 * have a `delay`, a `timeout` and, as far as the broker knows it, a `priority`: see docs/celery.md.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options, and if the package for the broker is not installed.
 * @example
 * const engine = celery({ broker: 'amqp://localhost', backend: 'redis://localhost/0' });
 * app.use(backgroundTasks({ engine }));
 */
export function celery(options: CeleryOptions): TaskEngine {
  checkOptions<CeleryOptions>('celery()', options, {
    broker: isText,
    queue: isText,
    queueArguments: isQueueArguments,
    backend: isText,
    resultBackend: isText,
  });
  return createEngine(new CeleryDriver(transportOf(options), resultsOf(options)));
}

function transportOf({ broker, queue = 'celery', queueArguments }: CeleryOptions): CeleryTransport {
  const url = readUrl('broker', broker, [...rabbitmqSchemes, ...redisSchemes]);
  if (isRabbitmq(url)) {
    return new AmqpTransport(url, { name: checkQueue(queue, isRabbitmqQueue), arguments: { ...queueArguments } });
  }
  if (queueArguments !== undefined) throw unsupported('celery', 'queueArguments', 'a queue in Redis has none');
  return new RedisTransport(url, checkQueue(queue, isRedisQueue));
}

function resultsOf({ resultBackend, backend = resultBackend }: CeleryOptions): CeleryResults | undefined {
  if (backend === undefined) return undefined;
  if (resultBackend !== undefined && backend !== resultBackend) {
    throw unsupported('celery', 'resultBackend', 'it is the old name of "backend", which says something else');
  }
  return new CeleryResults(new RedisClient('backend', readUrl('backend', backend, redisSchemes)));
}

const cli = 'ask Celery itself, by `celery inspect` and `celery control`, or Flower';

/** What the broker does not tell, or cannot do. */
const operations = {
  within: 'keep what is to be sent in a table of that transaction, an outbox: see "Transactions" in docs/engines.md',
  enqueueMany: 'a broker stores one task at a time: call enqueue()',
  list: cli,
  stats: cli,
  cancel: cli,
  retry: cli,
  promote: cli,
  remove: cli,
  schedules: 'use `celery beat`',
};

class CeleryDriver implements EngineDriver {
  readonly name = 'celery';
  readonly instead = {
    ...operations,
    work: "Celery's workers run in Python: start them with `celery -A <app> worker`",
    find: 'give celery() the `result_backend` of the workers as "backend"',
  };
  readonly find: EngineDriver['find'] | undefined;
  readonly #transport: CeleryTransport;
  readonly #results: CeleryResults | undefined;

  constructor(transport: CeleryTransport, results: CeleryResults | undefined) {
    this.#transport = transport;
    this.#results = results;
    this.find = results?.find.bind(results);
  }

  async prepare(expired: AbortSignal): Promise<void> {
    await Promise.all([this.#transport.ready(expired), this.#results?.ready(expired)]);
  }

  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    const priority = this.#transport.priority(message.priority ?? 0);
    await this.#transport.send(celeryMessage(message, priority), expired);
    return message.id;
  }

  async close(): Promise<void> {
    this.#results?.close();
    await this.#transport.close();
  }
}
