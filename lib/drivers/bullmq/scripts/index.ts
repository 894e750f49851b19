// What BullMQ has no call for, as scripts that Redis runs each as a whole. They move jobs between the sets of a queue as BullMQ's do.

import { createHash } from 'node:crypto';
import { wallClockTime } from '../../../clock.js';
import type { Connection } from '../connection.js';
import { changing } from './changing.js';
import { holding } from './holding.js';
import { looking } from './looking.js';
import { shared } from './shared.js';
import { storing } from './storing.js';

const bodies = { ...storing, ...looking, ...changing, ...holding };

export type ScriptName = keyof typeof bodies;

const scripts = new Map(
  Object.entries(bodies).map(([name, body]) => {
    const source = shared + body;
    return [name, { source, hash: createHash('sha1').update(source).digest('hex') }];
  }),
);

export class Scripts {
  readonly #connection: Connection;
  readonly #prefix: string;
  /** Of a key that there is: where keys are spread over several servers, it says which one has the queue. */
  readonly #place: string;
  /** Those that Redis has been sent. It may have lost them since. */
  readonly #sent = new Set<ScriptName>();

  constructor(connection: Connection, keyOf: (type: string) => string) {
    this.#connection = connection;
    this.#prefix = keyOf('');
    this.#place = keyOf('meta');
  }

  /** The arguments as a list: there may be more than a call can have. */
  async run(name: ScriptName, args: readonly (string | number)[] = []): Promise<unknown> {
    const { source = '', hash = '' } = scripts.get(name) ?? {};
    const all = [1, this.#place, this.#prefix, wallClockTime()].concat(args);
    if (!this.#sent.has(name)) {
      this.#sent.add(name);
      return this.#connection.call('EVAL', [source, ...all]);
    }
    try {
      return await this.#connection.call('EVALSHA', [hash, ...all]);
    } catch (error) {
      if (!(error instanceof Error) || !error.message.startsWith('NOSCRIPT')) throw error;
      return this.#connection.call('EVAL', [source, ...all]);
    }
  }
}
