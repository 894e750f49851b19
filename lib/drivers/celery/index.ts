// celery(): hands tasks over to workers that run in Python. A producer, and a reader of their results.

import { createEngine, unsupported } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskEngine } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import { BackgroundTasksError } from '../../errors.js';
import { inspectShort, isObject } from '../../foreign-value.js';
import { type Check, checkOptions } from '../../options.js';
import { AmqpTransport } from './amqp.js';
import { type CeleryTransport, celeryMessage } from './message.js';
import { CeleryRedis, RedisTransport } from './redis.js';
import { CeleryResults } from './result.js';

export { type Kwargs, kwargs } from './kwargs.js';

export interface CeleryOptions {
  /**
   * Celery's `broker_url`: `amqp://` or `amqps://` for RabbitMQ, which takes the package amqplib; `redis://` or `rediss://`
   * for Redis, which takes ioredis. The path of the latter is the number of the database, default 0.
   */
  broker: string;
  /** The queue that the workers take tasks from. Default `'celery'`, as in Celery. */
  queue?: string | undefined;
  /**
   * RabbitMQ only: the arguments that the workers declare the queue with. `{ 'x-max-priority': 10 }` makes `priority`
   * possible. Default none, as in Celery.
   */
  queueArguments?: Readonly<Record<string, unknown>> | undefined;
  /** Celery's `result_backend`, `redis://` or `rediss://`, for `get`. Default none: `get` rejects. */
  resultBackend?: string | undefined;
}

/**
 * Hands tasks over to Celery's workers, as a Celery client in Python does. Each task is a `task(name)` without a handler.
 * Of its options `delay` and `timeout` are possible and, within the means of the broker, `priority`: see docs/celery.md.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options, and where the broker's package is not installed.
 * @example
 * const engine = celery({ broker: 'amqp://localhost', resultBackend: 'redis://localhost/0' });
 * app.use(backgroundTasks({ engine }));
 */
export function celery(options: CeleryOptions): TaskEngine {
  checkOptions<CeleryOptions>('celery()', options, {
    broker: isText,
    queue: isText,
    queueArguments: (value) => (isObject(value) ? undefined : 'an object'),
    resultBackend: isText,
  });
  return createEngine(new CeleryDriver(transportOf(options), resultsOf(options)));
}

const isText: Check = (value) => (typeof value === 'string' && value !== '' ? undefined : 'a string that is not empty');

function transportOf({ broker, queue = 'celery', queueArguments }: CeleryOptions): CeleryTransport {
  if (schemeOf('broker', broker, ['amqp', 'amqps', 'redis', 'rediss']).startsWith('amqp')) {
    checkQueueName(queue);
    return new AmqpTransport(broker, { name: queue, arguments: queueArguments ?? {} });
  }
  if (queueArguments !== undefined) throw unsupported('celery', 'queueArguments', 'a queue in Redis has none');
  return new RedisTransport(broker, queue);
}

/** What RabbitMQ would refuse at each enqueue, or, with a line break, take for another queue. */
function checkQueueName(queue: string): void {
  const expected =
    Buffer.byteLength(queue) > 255
      ? 'at most 255 bytes long'
      : queue.startsWith('amq.')
        ? 'without the prefix "amq.", which RabbitMQ keeps for itself'
        : /[\r\n]/.test(queue)
          ? 'without line breaks'
          : undefined;
  if (expected === undefined) return;
  throw new BackgroundTasksError(
    'ERR_INVALID_OPTION',
    `celery(): "queue" must be ${expected}, not ${inspectShort(queue)}`,
  );
}

function resultsOf({ resultBackend }: CeleryOptions): CeleryResults | undefined {
  if (resultBackend === undefined) return undefined;
  schemeOf('resultBackend', resultBackend, ['redis', 'rediss']);
  return new CeleryResults(new CeleryRedis(resultBackend));
}

/** Says nothing of the rest of the URL, which may hold a password. */
function schemeOf(option: string, value: unknown, known: readonly string[]): string {
  const url = typeof value === 'string' && URL.canParse(value) ? new URL(value) : undefined;
  const scheme = url?.protocol.slice(0, -1);
  if (url === undefined || scheme === undefined || !known.includes(scheme)) {
    const expected = known.map((name) => `${name}://`).join(', ');
    const found = scheme === undefined ? 'there is none' : `it is ${scheme}://`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `celery(): "${option}" must be a URL (${expected}); ${found}`);
  }
  // ioredis would ask Redis for the database NaN, leave that rejection unhandled, and go on in database 0.
  const databases = scheme.startsWith('redis') ? [url.pathname.slice(1), url.searchParams.get('db') ?? ''] : [];
  if (databases.some((database) => /\D/.test(database))) {
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `celery(): the database in "${option}" must be a number`);
  }
  return scheme;
}

class CeleryDriver implements EngineDriver {
  readonly name = 'celery';
  readonly instead = {
    work: "Celery's workers run in Python: start them with `celery -A <app> worker`",
    find: 'give celery() the `result_backend` of the workers as "resultBackend"',
  };
  readonly find: EngineDriver['find'] | undefined;
  readonly #transport: CeleryTransport;
  readonly #results: CeleryResults | undefined;

  constructor(transport: CeleryTransport, results: CeleryResults | undefined) {
    this.#transport = transport;
    this.#results = results;
    this.find = results?.find.bind(results);
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
