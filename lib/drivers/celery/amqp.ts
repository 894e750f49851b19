// Celery over RabbitMQ: a durable queue, a channel with publisher confirms, and a connection that is opened when needed.

import { unsupported } from '../../engine/create-engine.js';
import { AmqpLink, hasCode, loadAmqplib, preconditionFailed } from './amqp-link.js';
import type { CeleryMessage, CeleryTransport } from './message.js';
import type { Queue } from './queue.js';

export class AmqpTransport implements CeleryTransport {
  readonly #url: URL;
  readonly #queue: Queue;
  #link: AmqpLink | undefined = undefined;
  readonly #lanes: Promise<void>[] = [];
  #nextLane = 0;

  constructor(url: URL, queue: Queue) {
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
    const link = this.#link ?? this.#open();
    const cut = (): void => this.#cut(link);
    late.addEventListener('abort', cut);
    try {
      await link.ready();
      if (Buffer.byteLength(message.body) <= large) return await link.send(message);
    } catch (error) {
      this.#leave(link);
      // One of those that were on their way is larger than this broker takes, and nothing says which one.
      if (!hasCode(error, preconditionFailed)) throw error;
    } finally {
      late.removeEventListener('abort', cut);
    }
    await this.#sendAlone(message, late);
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
      const link = new AmqpLink(this.#url, this.#queue, ignore);
      late.addEventListener('abort', () => link.cut());
      try {
        await link.ready();
        await link.send(message);
      } finally {
        void link.close();
      }
    };
    const sent = (this.#lanes[lane] ?? Promise.resolve()).then(send);
    this.#lanes[lane] = sent.catch(ignore);
    return sent;
  }

  #open(): AmqpLink {
    const link = new AmqpLink(this.#url, this.#queue, () => this.#forget(link));
    this.#link = link;
    return link;
  }

  #cut(link: AmqpLink): void {
    link.cut();
    this.#forget(link);
  }

  /**
   * Connects anew at the next message, at most once in 3 s: a node keeps the connections that it has blocked, while another
   * one may take messages at the same address. What was sent over this one is still answered.
   */
  #leave(link: AmqpLink): void {
    if (link.age < 3000) return;
    this.#forget(link);
    void link.leave();
  }

  #forget(link: AmqpLink): void {
    if (this.#link === link) this.#link = undefined;
  }
}

/** In bytes. Smaller ones share a connection. */
const large = 1024 * 1024;
/** How many larger ones are sent at the same time. */
const lanes = 4;

function ignore(): void {}
