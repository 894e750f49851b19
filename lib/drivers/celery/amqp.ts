// Celery over RabbitMQ: which connection a message is sent over, and when another one is opened.

import { unsupported } from '../../engine/calls.js';
import { loadAmqplib } from './amqp-connect.js';
import { AmqpLane } from './amqp-lane.js';
import { AmqpLink, hasCode, preconditionFailed } from './amqp-link.js';
import type { CeleryMessage, CeleryTransport } from './message.js';
import type { Queue } from './queue.js';

export class AmqpTransport implements CeleryTransport {
  readonly #url: URL;
  readonly #queue: Queue;
  #link: AmqpLink | undefined = undefined;
  readonly #lanes: AmqpLane[] = [];
  #nextLane = 0;

  constructor(url: URL, queue: Queue) {
    loadAmqplib(); // A missing package is reported here, not at the first message.
    this.#url = url;
    this.#queue = queue;
  }

  priority(asked: number): number {
    const highest = this.#queue.arguments['x-max-priority'] ?? 0;
    if (asked === 0 || (typeof highest === 'number' && asked > 0 && asked <= highest)) return asked;
    const range = `0 to ${highest}, the "x-max-priority" in "queueArguments"`;
    throw unsupported('celery', 'priority', `RabbitMQ takes ${range}, not ${asked}`);
  }

  ready(late: AbortSignal): Promise<void> {
    return this.#overLink((link) => link.check(), late);
  }

  async send(message: CeleryMessage, late: AbortSignal): Promise<void> {
    const isLarge = Buffer.byteLength(message.body) > large;
    try {
      await this.#overLink((link) => (isLarge ? Promise.resolve() : link.send(message)), late);
      if (!isLarge) return;
    } catch (error) {
      // One of the messages that were being sent is too large for this broker, which does not say which one.
      if (!hasCode(error, preconditionFailed)) throw error;
    }
    await this.#sendAlone(message, late);
  }

  async close(): Promise<void> {
    await this.#link?.close();
  }

  async #overLink(call: (link: AmqpLink) => Promise<void>, late: AbortSignal): Promise<void> {
    const link = this.#link ?? this.#open();
    const cut = (): void => this.#cut(link);
    late.addEventListener('abort', cut);
    try {
      await link.ready();
      await call(link);
    } catch (error) {
      this.#leave(link);
      throw error;
    } finally {
      late.removeEventListener('abort', cut);
    }
  }

  /** Over connections for one message at a time, of which there are only a few. */
  #sendAlone(message: CeleryMessage, late: AbortSignal): Promise<void> {
    const number = this.#nextLane++ % lanes;
    this.#lanes[number] ??= new AmqpLane(this.#url, this.#queue);
    return this.#lanes[number].send(message, late);
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
   * Makes the next message open a new connection, at most once in 3 s: a blocked node keeps its connections, while another
   * node may answer at the same address. The old connection stays until everything sent over it has been answered.
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

/** In bytes. Messages up to this size share a connection. */
const large = 1024 * 1024;
/** How many larger messages are sent at the same time. */
const lanes = 4;
