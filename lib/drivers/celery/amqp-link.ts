// One connection to RabbitMQ with one channel, which confirms what it is sent. Once either is lost, both are.

import type { ChannelModel, ConfirmChannel, Options } from 'amqplib';
import { monotonicTime, sleep } from '../../clock.js';
import { BackgroundTasksError } from '../../errors.js';
import { connect } from './amqp-connect.js';
import type { CeleryMessage } from './message.js';
import type { Queue } from './queue.js';

export class AmqpLink {
  readonly #channel: Promise<ConfirmChannel>;
  readonly #queue: Queue;
  readonly #onLost: () => void;
  readonly #openedAt = monotonicTime();
  readonly #returned = new Set<unknown>();
  readonly #socket = new AbortController();
  /** Why the broker has stopped reading from this connection, if it has. */
  #blocked: string | undefined = undefined;
  /** Why the broker closed the channel or the connection, if it said so. */
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

  /** Rejects if the broker cannot be reached, or does not read from this connection. */
  async ready(): Promise<void> {
    await this.#channel;
    if (this.#blocked !== undefined) throw new Error(`RabbitMQ takes no messages at present: ${this.#blocked}`);
  }

  /** Resolves once the broker has answered that the queue is there. */
  async check(): Promise<void> {
    await this.#declare(await this.#channel);
  }

  /** Resolves once the broker has stored the message in the queue. */
  async send(message: CeleryMessage): Promise<void> {
    const channel = await this.#channel;
    const { name } = this.#queue;
    const properties = propertiesOf(message);
    if (await this.#publish(channel, name, message.body, properties)) return;
    await this.#declare(channel); // The queue has been deleted.
    if (!(await this.#publish(channel, name, message.body, properties))) throw new Error(`there is no queue "${name}"`);
  }

  /** Closes the socket without a word to the broker, which may not answer. */
  cut(): void {
    this.#socket.abort();
  }

  /** Closes the connection once everything sent over it has been answered. */
  async leave(): Promise<void> {
    await this.#channel.then((channel) => channel.waitForConfirms()).catch(ignore);
    await this.close();
  }

  async close(): Promise<void> {
    const connection = this.#connection;
    if (connection !== undefined) {
      const closed = new Promise((resolve) => {
        connection.on('close', resolve);
        connection.close().catch(resolve); // It was closed already.
      });
      await Promise.race([closed, sleep(1000, undefined, { ref: false })]);
    }
    this.cut(); // A socket that cannot be flushed would keep the process alive.
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
    const connection = await connect(url, this.#socket.signal);
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

  /** Declares the queue as kombu does. The broker refuses if the queue exists with other properties. */
  async #declare(channel: ConfirmChannel): Promise<void> {
    try {
      await channel.assertQueue(this.#queue.name, { durable: true, arguments: this.#queue.arguments });
    } catch (error) {
      if (!hasCode(error, preconditionFailed)) throw error;
      const message = `celery: "queue" and "queueArguments" must declare the queue as the workers do: ${error.message}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause: error });
    }
  }

  /**
   * A broker that is low on memory or disk space blocks a connection only at its first message. So the first message is an
   * empty one, for a queue that nobody can make.
   */
  async #probe(channel: ConfirmChannel): Promise<void> {
    await this.#publish(channel, 'amq.nobody', '', { correlationId: 'probe' });
  }

  /** Resolves once the broker has confirmed the message: with false if there is no such queue. */
  #publish(channel: ConfirmChannel, queue: string, body: string, options: Properties): Promise<boolean> {
    return new Promise((resolve, reject) => {
      channel.publish('', queue, Buffer.from(body), { ...options, mandatory: true }, (error: unknown) => {
        // A message that cannot be routed is returned first, and then confirmed all the same.
        const isReturned = this.#returned.delete(options.correlationId);
        // amqplib only says that the channel is closed.
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

export const preconditionFailed = 406;

export function hasCode(error: unknown, code: number): error is Error {
  return error instanceof Error && 'code' in error && error.code === code;
}

function ignore(): void {}
