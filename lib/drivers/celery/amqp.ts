// Celery over RabbitMQ: a durable queue, a channel with publisher confirms, and a connection that is opened when needed.

import type { ChannelModel, ConfirmChannel } from 'amqplib';
import { sleep } from '../../clock.js';
import { unsupported } from '../../engine/create-engine.js';
import { BackgroundTasksError } from '../../errors.js';
import { type CeleryMessage, type CeleryTransport, missingPackage } from './message.js';

export class AmqpTransport implements CeleryTransport {
  readonly #url: string;
  readonly #queue: Queue;
  #link: Link | undefined = undefined;
  readonly #lanes: Promise<void>[] = [];
  #nextLane = 0;

  constructor(url: string, queue: Queue) {
    loadAmqplib(); // A package that is missing fails here, not at the first message.
    this.#url = url;
    this.#queue = queue;
  }

  priority(asked: number): number {
    const highest = this.#queue.arguments['x-max-priority'] ?? 0;
    if (asked === 0 || (typeof highest === 'number' && asked > 0 && asked <= highest)) return asked;
    const range = `from 0 to the queue's "x-max-priority", which is ${highest} in "queueArguments"`;
    throw unsupported('celery', 'priority', `RabbitMQ has it ${range}, and the task asks for ${asked}`);
  }

  async send(message: CeleryMessage, late: AbortSignal): Promise<void> {
    if (Buffer.byteLength(message.body) > large) return this.#sendAlone(message, late);
    const link = this.#link ?? this.#open();
    late.addEventListener('abort', () => this.#cut(link));
    try {
      await sendOver(link, message, this.#queue.name);
    } catch (error) {
      // One of those that were on their way is larger than this broker takes, and nothing says which one.
      if (!hasCode(error, preconditionFailed)) throw error;
      await this.#sendAlone(message, late);
    }
  }

  async close(): Promise<void> {
    await this.#link?.close();
  }

  /**
   * Over a connection of its own, few at a time: a broker that takes no message of this size closes the channel, and what else
   * was on its way by it is lost.
   */
  #sendAlone(message: CeleryMessage, late: AbortSignal): Promise<void> {
    const lane = this.#nextLane++ % lanes;
    const send = async (): Promise<void> => {
      if (late.aborted) return;
      const link = new Link(this.#url, this.#queue, ignore);
      late.addEventListener('abort', () => link.cut());
      try {
        await sendOver(link, message, this.#queue.name);
      } finally {
        void link.close();
      }
    };
    const sent = (this.#lanes[lane] ?? Promise.resolve()).then(send);
    this.#lanes[lane] = sent.catch(ignore);
    return sent;
  }

  /** A blocked connection stays: the broker will read what it was sent, and until then takes no more by this one. */
  #cut(link: Link): void {
    if (link.blocked !== undefined) return;
    link.cut();
    if (this.#link === link) this.#link = undefined;
  }

  #open(): Link {
    const link = new Link(this.#url, this.#queue, () => {
      if (this.#link === link) this.#link = undefined;
    });
    this.#link = link;
    return link;
  }
}

async function sendOver(link: Link, message: CeleryMessage, queue: string): Promise<void> {
  const channel = await link.channel;
  if (link.blocked !== undefined) throw new Error(`RabbitMQ takes no messages at present: ${link.blocked}`);
  if (await link.publish(channel, message)) return;
  await link.declare(channel); // It was deleted since.
  if (!(await link.publish(channel, message))) throw new Error(`there is no queue "${queue}"`);
}

/** In bytes. Smaller ones share a connection. */
const large = 1024 * 1024;
/** How many larger ones are sent at the same time. */
const lanes = 4;

interface Queue {
  readonly name: string;
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** One connection and its channel: if either is lost, so are both. */
class Link {
  readonly channel: Promise<ConfirmChannel>;
  /** Why the broker has stopped to read from this connection, if it has. */
  blocked: string | undefined = undefined;
  readonly #queue: Queue;
  readonly #onLost: () => void;
  readonly #returned = new Set<unknown>();
  readonly #socket = new AbortController();
  /** Why the broker has closed the channel or the connection, if it has said so. */
  #reason: Error | undefined = undefined;
  #connection: ChannelModel | undefined = undefined;

  constructor(url: string, queue: Queue, onLost: () => void) {
    this.#queue = queue;
    this.#onLost = onLost;
    this.channel = this.#open(url);
  }

  /** Kombu's declaration. An existing queue stays as it is; if it is another one, the broker refuses. */
  async declare(channel: ConfirmChannel): Promise<void> {
    try {
      await channel.assertQueue(this.#queue.name, { durable: true, arguments: this.#queue.arguments });
    } catch (error) {
      if (!hasCode(error, preconditionFailed)) throw error;
      const message = `celery: "queue" and "queueArguments" must say what the workers say of it: ${error.message}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause: error });
    }
  }

  /** Resolves once the broker has stored it, with false if there was no queue for it. */
  publish(channel: ConfirmChannel, { id, headers, body, priority }: CeleryMessage): Promise<boolean> {
    const options = {
      contentType: 'application/json',
      contentEncoding: 'utf-8',
      correlationId: id,
      replyTo: '',
      deliveryMode: 2,
      mandatory: true,
      headers,
      priority,
    };
    return new Promise((resolve, reject) => {
      channel.publish('', this.#queue.name, Buffer.from(body), options, (error: unknown) => {
        // What the broker could not route is returned first, and then confirmed all the same.
        const isReturned = this.#returned.delete(id);
        // amqplib says no more than that the channel is closed.
        if (error) reject(this.#reason ?? error);
        else resolve(!isReturned);
      });
    });
  }

  /** Without a goodbye, to a broker that may not answer. */
  cut(): void {
    this.#socket.abort();
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

  async #open(url: string): Promise<ConfirmChannel> {
    try {
      const clientProperties = { connection_name: 'express-background-tasks' };
      const socketOptions = { timeout: 4000, noDelay: true, clientProperties, signal: this.#socket.signal };
      this.#connection = await loadAmqplib().connect(url, socketOptions);
      const learn = (reason: Error): void => {
        this.#reason ??= reason;
      };
      this.#connection.on('error', learn);
      this.#connection.on('close', this.#onLost);
      this.#connection.on('blocked', (reason) => {
        this.blocked = reason;
      });
      this.#connection.on('unblocked', () => {
        this.blocked = undefined;
      });
      const channel = await this.#connection.createConfirmChannel();
      channel.on('error', learn);
      channel.on('close', () => this.#lose());
      channel.on('return', ({ properties }) => this.#returned.add(properties.correlationId));
      await this.declare(channel);
      return channel;
    } catch (error) {
      this.#lose();
      throw error;
    }
  }

  #lose(): void {
    this.#onLost();
    void this.close();
  }
}

function loadAmqplib(): typeof import('amqplib') {
  try {
    return require('amqplib');
  } catch (cause) {
    throw missingPackage('amqplib', cause);
  }
}

const preconditionFailed = 406;

function hasCode(error: unknown, code: number): error is Error {
  return error instanceof Error && 'code' in error && error.code === code;
}

function ignore(): void {}
