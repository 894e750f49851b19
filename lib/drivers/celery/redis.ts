// Celery's Redis: a queue is a list, laid out by kombu (kombu/transport/redis.py); results are JSON strings.

import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { unsupported } from '../../engine/engine.js';
import { type CeleryMessage, type CeleryTransport, missingPackage } from './message.js';

/** A client that connects when it is used, never by itself: an outage costs nothing, and nothing is sent after it has failed. */
export class CeleryRedis {
  readonly #ioredis = loadIoredis();
  readonly #url: string;
  #client: Redis | undefined = undefined;
  #ready: Promise<void> = Promise.resolve();

  constructor(url: string) {
    this.#url = url;
  }

  async push(list: string, value: string): Promise<void> {
    const client = await this.#connected();
    await client.lpush(list, value);
  }

  async read(key: string): Promise<string | null> {
    const client = await this.#connected();
    return client.get(key);
  }

  reset(): void {
    this.#client?.disconnect();
    this.#client = undefined;
  }

  async #connected(): Promise<Redis> {
    const client = this.#client ?? this.#connect();
    await this.#ready;
    return client;
  }

  #connect(): Redis {
    const client = new this.#ioredis.Redis(this.#url, {
      lazyConnect: true,
      connectTimeout: 4000,
      disconnectTimeout: 0,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
    });
    this.#client = client;
    client.on('close', () => {
      if (this.#client === client) this.#client = undefined;
    });
    this.#ready = new Promise((resolve, reject) => {
      // Comes before the rejection of connect(), and says why. Later ones change nothing.
      client.on('error', reject);
      client.connect().then(resolve, reject);
    });
    return client;
  }
}

export class RedisTransport implements CeleryTransport {
  readonly #redis: CeleryRedis;
  readonly #queue: string;

  constructor(url: string, queue: string) {
    this.#redis = new CeleryRedis(url);
    this.#queue = queue;
  }

  /** Kombu's lists for priorities, of which 0 is the one that workers empty first. */
  priority(asked: number): number {
    const step = Math.abs(asked);
    if (asked <= 0 && priorities.includes(step)) return step;
    throw unsupported('celery', 'priority', `over Redis there are 0, -3, -6 and -9, not ${asked}`);
  }

  async send({ id, headers, body, priority }: CeleryMessage): Promise<void> {
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
    await this.#redis.push(priority === 0 ? this.#queue : `${this.#queue}\x06\x16${priority}`, envelope);
  }

  reset(): void {
    this.#redis.reset();
  }

  async close(): Promise<void> {
    this.#redis.reset();
  }
}

function loadIoredis(): typeof import('ioredis') {
  try {
    return require('ioredis');
  } catch (cause) {
    throw missingPackage('ioredis', cause);
  }
}

const priorities = [0, 3, 6, 9];
