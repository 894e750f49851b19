// Celery over Redis: a queue is a list, laid out by kombu (kombu/transport/redis.py).

import { randomUUID } from 'node:crypto';
import type { Redis } from 'ioredis';
import { monotonicTime, sleep } from '../../clock.js';
import { unsupported } from '../../engine/create-engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import { type CeleryMessage, type CeleryTransport, missingPackage } from './message.js';

/**
 * A client that connects when it is used, and never by itself: nothing is tried during an outage, and no command is sent after
 * its caller has been told that it failed.
 */
export class CeleryRedis {
  readonly #ioredis = loadIoredis();
  readonly #option: string;
  readonly #url: URL;
  #client: Redis | undefined = undefined;
  #ready: Promise<void> = Promise.resolve();
  #connectedAt = 0;

  /** `option` has the URL, as messages name it. */
  constructor(option: string, url: URL) {
    this.#option = option;
    this.#url = url;
  }

  push(list: string, value: string, late: AbortSignal): Promise<unknown> {
    return this.#ask((client) => client.lpush(list, value), late);
  }

  /** Returns the bytes from one position to another, both included. Empty if there is no such key. */
  read(key: string, from: number, to: number, late: AbortSignal): Promise<string> {
    return this.#ask((client) => client.getrange(key, from, to), late);
  }

  close(): void {
    this.#client?.disconnect();
    this.#client = undefined;
  }

  async #ask<T>(command: (client: Redis) => Promise<T>, late: AbortSignal): Promise<T> {
    const client = this.#client ?? this.#connect();
    late.addEventListener('abort', () => this.#cut(client));
    try {
      await this.#ready;
    } catch (error) {
      this.#cut(client); // The connection stays open if Redis has refused the login or the database.
      throw isDatabaseRefused(error) ? this.#databaseRefused(error) : error;
    }
    try {
      return await command(client);
    } catch (error) {
      if (error instanceof Error && error.name === 'ReplyError') this.#leave(client);
      throw error;
    }
  }

  #cut(client: Redis): void {
    client.disconnect();
    if (this.#client === client) this.#client = undefined;
  }

  /**
   * Makes the next call open a new connection, at most once a second: a master that has become a replica keeps its connections
   * and refuses every write, while another master may answer at the same address. The old connection stays until everything
   * sent over it has been answered.
   */
  #leave(client: Redis): void {
    if (this.#client !== client || monotonicTime() - this.#connectedAt < 1000) return;
    this.#client = undefined;
    const answered = client.quit().catch(ignore);
    void Promise.race([answered, sleep(5000, undefined, { ref: false })]).then(() => client.disconnect());
  }

  #databaseRefused(cause: Error): BackgroundTasksError {
    const message = `celery: Redis refuses the database in "${this.#option}": ${cause.message}`;
    return new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
  }

  #connect(): Redis {
    const client = new this.#ioredis.Redis(this.#url.href, {
      lazyConnect: true,
      connectTimeout: 4000,
      disconnectTimeout: 0,
      retryStrategy: () => null,
      enableOfflineQueue: false,
      autoResendUnfulfilledCommands: false,
    });
    this.#client = client;
    this.#connectedAt = monotonicTime();
    client.on('close', () => {
      if (this.#client === client) this.#client = undefined;
    });
    this.#ready = new Promise((resolve, reject) => {
      // This event comes before connect() rejects, and has the reason. Later ones change nothing.
      client.on('error', reject);
      client.connect().then(resolve, reject);
    });
    return client;
  }
}

export class RedisTransport implements CeleryTransport {
  readonly #redis: CeleryRedis;
  readonly #queue: string;

  constructor(url: URL, queue: string) {
    this.#redis = new CeleryRedis('broker', url);
    this.#queue = queue;
  }

  /** Kombu has one list for each of these priorities. Workers empty the list of 0 first. */
  priority(asked: number): number {
    const step = Math.abs(asked);
    if (asked <= 0 && priorities.includes(step)) return step;
    throw unsupported('celery', 'priority', `Redis takes 0, -3, -6 and -9, not ${asked}`);
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

function loadIoredis(): typeof import('ioredis') {
  try {
    return require('ioredis');
  } catch (cause) {
    throw missingPackage('ioredis', cause);
  }
}

/** A user without the right to a database is treated like a wrong password: the engine is unavailable. */
function isDatabaseRefused(error: unknown): error is Error {
  if (!(error instanceof Error && 'command' in error && isObject(error.command))) return false;
  return Reflect.get(error.command, 'name') === 'select' && error.message.startsWith('ERR ');
}

const priorities = [0, 3, 6, 9];

function ignore(): void {}
