// Which task names the live workers of a queue know, in all processes. Each worker notes its names in Redis, one key a name.
// A note expires unless it is renewed.

import { clearInterval, monotonicTime, setInterval } from '../../clock.js';
import type { Connection } from './connection.js';

/** How long a note holds, in ms: longer than a process takes to restart. */
const validity = 20_000;
const renewal = 5000;

/** Other workers may start, or be back after an outage, so many ms later than this one. */
const patience = 3000;

export class Names {
  readonly #connection: Connection;
  readonly #keys: readonly string[];
  readonly #renewing = setInterval(() => this.#note(), renewal);
  #completeAt = 0;

  /** `keys`: of the names that this worker knows. */
  constructor(connection: Connection, keys: readonly string[]) {
    this.#connection = connection;
    this.#keys = keys;
    connection.on('ready', this.#onReady);
    if (connection.status === 'ready') this.#onReady();
  }

  /** False while other workers may not have noted their names yet. */
  get areComplete(): boolean {
    return monotonicTime() >= this.#completeAt;
  }

  close(): void {
    clearInterval(this.#renewing);
    this.#connection.off('ready', this.#onReady);
  }

  readonly #onReady = (): void => {
    this.#completeAt = monotonicTime() + patience;
    this.#note();
  };

  #note(): void {
    if (this.#connection.status !== 'ready') return; // Otherwise the notes would pile up until Redis is back.
    const notes = this.#connection.pipeline();
    for (const key of this.#keys) notes.set(key, '', 'PX', validity);
    notes.exec().catch(() => {}); // The next one follows.
  }
}
