// The engine's connections to Redis: clients of ioredis that BullMQ is given, since its own would do what they were not asked to.

import { Redis, type RedisOptions } from 'ioredis';

/** Never ready on another database than the one that it was told. */
export class Connection extends Redis {
  #trouble: Error | undefined = undefined;
  /** Why the open connection is not to be used. */
  #refusal: Error | undefined = undefined;

  constructor(options: RedisOptions) {
    super({ ...options, lazyConnect: false, enableReadyCheck: true, replyMapping: 'legacy' });
    // BullMQ makes the connection that blocks by it. As a method it would have to have ioredis' type, which no subclass can.
    Object.defineProperty(this, 'duplicate', {
      value: (changed?: RedisOptions) => new Connection({ ...this.options, ...changed }),
      configurable: true, // A proxy of BullMQ's stands for it.
    });
    this.on('error', (error: Error) => this.#onError(error));
    this.on('ready', () => {
      this.#trouble = this.#refusal;
    });
    this.on('close', () => {
      this.#refusal = undefined;
    });
  }

  /** Why Redis is out of reach, if it is. */
  get trouble(): Error | undefined {
    return this.#trouble;
  }

  /** ioredis asks this of each new connection, and calls it ready after the answer. */
  override info(...args: unknown[]): Promise<string> {
    const answer = this.#info();
    const [callback] = args;
    if (typeof callback === 'function') {
      answer.then(
        (text) => callback(null, text),
        (error) => callback(error),
      );
    }
    return answer;
  }

  async #info(): Promise<string> {
    if (this.#refusal === undefined) {
      const text = await super.info();
      if (this.#refusal === undefined) return text;
    }
    throw new Error('the database was refused'); // Redis' own reason may be one that ioredis overlooks.
  }

  /** Where SELECT is refused, ioredis would go on in database 0. */
  #onError(error: Error): void {
    if (this.#refusal !== undefined) return;
    this.#trouble = error;
    if (!('command' in error) || !isSelect(error.command)) return;
    this.#refusal = error;
    this.disconnect(true);
  }
}

function isSelect(command: unknown): boolean {
  return typeof command === 'object' && command !== null && 'name' in command && command.name === 'select';
}
