// Celery over Redis: a queue is a list, laid out by kombu (kombu/transport/redis.py).

import { randomUUID } from 'node:crypto';
import { unsupported } from '../../engine/calls.js';
import { BackgroundTasksError } from '../../errors.js';
import type { CeleryMessage, CeleryTransport } from './message.js';
import { RedisClient } from './redis-client.js';

export class RedisTransport implements CeleryTransport {
  readonly #redis: RedisClient;
  readonly #queue: string;

  constructor(url: URL, queue: string) {
    this.#redis = new RedisClient('broker', url);
    this.#queue = queue;
  }

  /** Kombu has one list for each of these priorities. Workers empty the list of 0 first. */
  priority(asked: number): number {
    const step = Math.abs(asked);
    if (asked <= 0 && priorities.includes(step)) return step;
    throw unsupported('celery', 'priority', `Redis takes 0, -3, -6 and -9, not ${asked}`);
  }

  ready(late: AbortSignal): Promise<void> {
    return this.#redis.ready(late);
  }

  async send({ id, headers, body, priority }: CeleryMessage, late: AbortSignal): Promise<void> {
    const envelope = JSON.stringify({
      body: Buffer.from(body).toString('base64'),
      'content-encoding': 'utf-8',
      'content-type': 'application/json',
      headers,
      properties: {
        correlation_id: id,
        reply_to: '',
        delivery_mode: 2,
        delivery_info: { exchange: '', routing_key: this.#queue },
        priority,
        body_encoding: 'base64',
        delivery_tag: randomUUID(),
      },
    });
    const list = priority === 0 ? this.#queue : `${this.#queue}\x06\x16${priority}`;
    try {
      await this.#redis.push(list, envelope, late);
    } catch (error) {
      if (!(error instanceof Error && error.message.startsWith('WRONGTYPE '))) throw error;
      const message = `celery: "queue" names a key of another kind in this database: ${error.message}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause: error });
    }
  }

  async close(): Promise<void> {
    this.#redis.close();
  }
}

const priorities = [0, 3, 6, 9];
