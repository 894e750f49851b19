// One connection to RabbitMQ and its channel: if either is lost, so are both.

import type { ChannelModel, ConfirmChannel, Options, SocketOptions } from 'amqplib';
import { monotonicTime, sleep } from '../../clock.js';
import { BackgroundTasksError } from '../../errors.js';
import { type CeleryMessage, missingPackage } from './message.js';
import type { Queue } from './queue.js';

export class AmqpLink {
  readonly #channel: Promise<ConfirmChannel>;
  readonly #queue: Queue;
  readonly #onLost: () => void;
  readonly #openedAt = monotonicTime();
  readonly #returned = new Set<unknown>();
  readonly #socket = new AbortController();
  /** Why the broker has stopped to read from this connection, if it has. */
  #blocked: string | undefined = undefined;
  /** Why the broker has closed the channel or the connection, if it has said so. */
  #reason: Error | undefined = undefined;
  #connection: ChannelModel | undefined = undefined;

  constructor(url: URL, queue: Queue, onLost: () => void) {
    this.#queue = queue;
    this.#onLost = onLost;
    this.#channel = this.#open(url);
  }

  /** In ms. */
  get age(): number {
    return monotonicTime() - this.#openedAt;
  }

  /** Rejects where the broker could not be reached, or does not read what it is sent. */
  async ready(): Promise<void> {
    await this.#channel;
    if (this.#blocked !== undefined) throw new Error(`RabbitMQ takes no messages at present: ${this.#blocked}`);
  }

  /** Resolves once the broker has stored it in the queue. */
  async send(message: CeleryMessage): Promise<void> {
    const channel = await this.#channel;
    const { name } = this.#queue;
    const properties = propertiesOf(message);
    if (await this.#publish(channel, name, message.body, properties)) return;
    await this.#declare(channel); // It was deleted since.
    if (!(await this.#publish(channel, name, message.body, properties))) throw new Error(`there is no queue "${name}"`);
  }

  /** Without a goodbye, to a broker that may not answer. */
  cut(): void {
    this.#socket.abort();
  }

  /** Closes it once all that was sent has been answered. */
  async leave(): Promise<void> {
    await this.#channel.then((channel) => channel.waitForConfirms()).catch(ignore);
    await this.close();
  }

  async close(): Promise<void> {
    const connection = this.#connection;
    if (connection !== undefined) {
      const closed = new Promise((resolve) => {
        connection.on('close', resolve);
        connection.close().catch(resolve); // It is closed already.
      });
      await Promise.race([closed, sleep(1000, undefined, { ref: false })]);
    }
    this.cut(); // A socket that could not be flushed would keep the process up.
  }

  async #open(url: URL): Promise<ConfirmChannel> {
    try {
      const connection = await this.#connect(url);
      const channel = await connection.createConfirmChannel();
      channel.on('error', (error) => this.#learn(error));
      channel.on('close', () => this.#lose());
      channel.on('return', ({ properties }) => this.#returned.add(properties.correlationId));
      await this.#declare(channel);
      await this.#probe(channel);
      return channel;
    } catch (error) {
      this.#lose();
      throw error;
    }
  }

  async #connect(url: URL): Promise<ChannelModel> {
    const clientProperties = { connection_name: 'express-background-tasks' };
    const { signal } = this.#socket;
    const options = { timeout: 4000, noDelay: true, clientProperties, signal, ...credentialsOf(url) };
    const connection = await loadAmqplib().connect(withHeartbeat(url), options).catch(explain);
    this.#connection = connection;
    connection.on('error', (error) => this.#learn(error));
    connection.on('close', this.#onLost);
    connection.on('blocked', (reason) => {
      this.#blocked = reason;
    });
    connection.on('unblocked', () => {
      this.#blocked = undefined;
    });
    return connection;
  }

  /** Kombu's declaration. An existing queue stays as it is; if it is another one, the broker refuses. */
  async #declare(channel: ConfirmChannel): Promise<void> {
    try {
      await channel.assertQueue(this.#queue.name, { durable: true, arguments: this.#queue.arguments });
    } catch (error) {
      if (!hasCode(error, preconditionFailed)) throw error;
      const message = `celery: "queue" and "queueArguments" must say what the workers say of it: ${error.message}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause: error });
    }
  }

  /**
   * A broker without memory or disk space blocks a connection at its first message, and says nothing before. So the first one
   * is empty, and for a queue that nobody can make.
   */
  async #probe(channel: ConfirmChannel): Promise<void> {
    await this.#publish(channel, 'amq.nobody', '', { correlationId: 'probe' });
  }

  /** Resolves once the broker has stored it, with false if there was no such queue. */
  #publish(channel: ConfirmChannel, queue: string, body: string, options: Properties): Promise<boolean> {
    return new Promise((resolve, reject) => {
      channel.publish('', queue, Buffer.from(body), { ...options, mandatory: true }, (error: unknown) => {
        // What the broker could not route is returned first, and then confirmed all the same.
        const isReturned = this.#returned.delete(options.correlationId);
        // amqplib says no more than that the channel is closed.
        if (error) reject(this.#reason ?? error);
        else resolve(!isReturned);
      });
    });
  }

  #learn(reason: Error): void {
    this.#reason ??= reason;
  }

  #lose(): void {
    this.#onLost();
    void this.close();
  }
}

type Properties = Options.Publish & { readonly correlationId: string };

function propertiesOf({ id, headers, priority }: CeleryMessage): Properties {
  return {
    contentType: 'application/json',
    contentEncoding: 'utf-8',
    correlationId: id,
    replyTo: '',
    deliveryMode: 2,
    headers,
    priority,
  };
}

/** By it a blocked broker, which does not read, notices within seconds that a connection has been given up. */
function withHeartbeat({ href }: URL): string {
  const url = new URL(href);
  if (!url.searchParams.has('heartbeat')) url.searchParams.set('heartbeat', '10');
  return url.href;
}

/** amqplib itself would read percent-encoded UTF-8 as Latin-1. */
function credentialsOf({ username, password }: URL): Pick<SocketOptions, 'credentials'> {
  if (username === '' && password === '') return {}; // Its default is guest.
  const { plain } = loadAmqplib().credentials;
  return { credentials: plain(decodeURIComponent(username), decodeURIComponent(password)) };
}

/** RabbitMQ says why it refuses the virtual host, but amqplib does not pass it on. */
function explain(error: unknown): never {
  if (!(error instanceof Error && error.message.startsWith('Expected ConnectionOpenOk; got <ConnectionClose')))
    throw error;
  const reason = 'there is none of this name, the user may not use it, it is down, or it takes no more connections';
  const message = `celery: RabbitMQ refuses the virtual host in "broker": ${reason}`;
  throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause: error });
}

export function loadAmqplib(): typeof import('amqplib') {
  try {
    return require('amqplib');
  } catch (cause) {
    throw missingPackage('amqplib', cause);
  }
}

export const preconditionFailed = 406;

export function hasCode(error: unknown, code: number): error is Error {
  return error instanceof Error && 'code' in error && error.code === code;
}

function ignore(): void {}
