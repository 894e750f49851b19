// Notes in Redis of the names that the live workers of a queue know, in all processes: each under a key that expires unless it is
// renewed.

import { clearInterval, monotonicTime, setInterval } from '../../clock.js';
import type { Connection } from './connection.js';

/** ms for which a note holds: longer than a process takes to start anew. */
const validity = 20_000;
const renewal = 2500;

/** So many ms later than this one, other workers may begin or be back after an outage. */
const patience = 3000;

export class Names {
  readonly #connection: Connection;
  readonly #keys: readonly string[];
  readonly #onNoted: () => void;
  readonly #renewing = setInterval(() => this.#note(), renewal);
  #completeAt = 0;

  /** `keys`: those of the names that this worker knows. `onNoted`: called whenever Redis has answered. */
  constructor(connection: Connection, keys: readonly string[], onNoted: () => void) {
    this.#connection = connection;
    this.#keys = keys;
    this.#onNoted = onNoted;
    connection.on('ready', this.#onReady);
    if (connection.status === 'ready') this.#onReady();
  }

  /** Whether a name that is not noted may be said to be unknown to all. */
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
    if (this.#connection.status !== 'ready') return; // Else the notes would wait in line until Redis is back.
    const notes = this.#connection.pipeline().ping();
    for (const key of this.#keys) notes.set(key, '', 'PX', validity);
    notes.exec().then(this.#onNoted, () => {}); // The next one follows.
  }
}
