// A client of Redis, by the package ioredis: for queues and for results.

import type { Redis } from 'ioredis';
import { monotonicTime, sleep } from '../../clock.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import { missingPackage } from './message.js';

/**
 * A client that connects when it is used, and never by itself: nothing is tried during an outage, and no command is sent after
 * its caller has been told that it failed.
 */
export class RedisClient {
  readonly #ioredis = loadIoredis();
  readonly #option: string;
  readonly #url: URL;
  #client: Redis | undefined = undefined;
  #ready: Promise<void> = Promise.resolve();
  #connectedAt = 0;

  /** `option`: the name of the option that holds the URL, for messages. */
  constructor(option: string, url: URL) {
    this.#option = option;
    this.#url = url;
  }

  async ready(late: AbortSignal): Promise<void> {
    await this.#ask((client) => client.ping(), late);
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

function ignore(): void {}
