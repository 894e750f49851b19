// Sends one message at a time, over a connection that is there as long as messages wait. A broker that refuses the size of a
// message closes the channel, and with it everything else that is being sent over that channel.

import { AmqpLink } from './amqp-link.js';
import type { CeleryMessage } from './message.js';
import type { Queue } from './queue.js';

export class AmqpLane {
  readonly #url: URL;
  readonly #queue: Queue;
  #link: AmqpLink | undefined = undefined;
  #last: Promise<void> = Promise.resolve();
  #open = 0;

  constructor(url: URL, queue: Queue) {
    this.#url = url;
    this.#queue = queue;
  }

  /** Nothing is sent once `late` is aborted. */
  send(message: CeleryMessage, late: AbortSignal): Promise<void> {
    this.#open++;
    const sent = this.#last.then(() => this.#send(message, late));
    this.#last = sent.catch(() => {});
    return sent;
  }

  async #send(message: CeleryMessage, late: AbortSignal): Promise<void> {
    try {
      if (!late.aborted) await this.#sendOver(this.#link ?? this.#connect(), message, late);
    } finally {
      this.#open--;
      if (this.#open === 0) this.#leave(this.#link);
    }
  }

  async #sendOver(link: AmqpLink, message: CeleryMessage, late: AbortSignal): Promise<void> {
    const cut = (): void => link.cut();
    late.addEventListener('abort', cut);
    try {
      await link.ready();
      await link.send(message);
    } catch (error) {
      this.#leave(link);
      throw error;
    } finally {
      late.removeEventListener('abort', cut);
    }
  }

  #connect(): AmqpLink {
    const link = new AmqpLink(this.#url, this.#queue, () => this.#forget(link));
    this.#link = link;
    return link;
  }

  #leave(link: AmqpLink | undefined): void {
    if (link === undefined) return;
    this.#forget(link); // The next message opens another one, also before this one is closed.
    void link.close();
  }

  #forget(link: AmqpLink): void {
    if (this.#link === link) this.#link = undefined;
  }
}
