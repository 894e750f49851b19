// The engine's connections to Redis: clients of ioredis that BullMQ is given, since its own would do what they were not asked to.

import { Redis, type RedisOptions } from 'ioredis';

/** Never ready on another database than the one that it was told, and never content with a Redis that is no master any more. */
export class Connection extends Redis {
  #trouble: Error | undefined = undefined;
  /** Why the open connection is not to be used. */
  #refusal: Error | undefined = undefined;
  /** A connection that is to be replaced by the next one. */
  #left: object | undefined = undefined;
  readonly #duplicates: Connection[] = [];
  #isEnded = false;

  constructor(options: RedisOptions) {
    // In ms. When it disconnects, ioredis keeps the process up for so long, even if the connection is closed already.
    const disconnectTimeout = 100;
    super({ ...options, disconnectTimeout, lazyConnect: true, enableReadyCheck: true, replyMapping: 'legacy' });
    this.options.reconnectOnError = (error) => this.#leaves(error) || (options.reconnectOnError?.(error) ?? false);
    // BullMQ makes the connection that blocks by it. As a method it would have to have ioredis' type, which no subclass can.
    Object.defineProperty(this, 'duplicate', {
      value: (changed?: RedisOptions) => {
        const duplicate = new Connection({ ...options, ...changed });
        this.#duplicates.push(duplicate);
        return duplicate;
      },
      configurable: true, // A proxy of BullMQ's stands for it.
    });
    this.on('error', (error: Error) => this.#onError(error));
    this.on('ready', () => {
      this.#trouble = this.#refusal;
    });
    this.on('close', () => {
      this.#refusal = undefined;
    });
    this.connect().catch(() => {}); // Listeners for 'error' hear of it.
  }

  /** Why Redis is out of reach, if it is. */
  get trouble(): Error | undefined {
    return this.#trouble;
  }

  /** Closes it and its duplicates for good. BullMQ may still try to reconnect one, which would keep the process up. */
  finish(): void {
    this.#isEnded = true;
    for (const duplicate of this.#duplicates) duplicate.finish();
    this.disconnect();
  }

  override connect(callback?: () => void): Promise<void> {
    return this.#isEnded ? Promise.reject(new Error('the connection has ended')) : super.connect(callback);
  }

  /** Each of a thousand refused commands asks for the next connection. Once is enough, and does not pile up listeners. */
  override disconnect(reconnect = false): void {
    if (reconnect && this.#left === this.stream) return;
    this.#left = this.stream;
    super.disconnect(reconnect);
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
      const text = await super.info().catch(versionOf);
      if (this.#refusal === undefined) return text;
    }
    throw new Error('the database was refused'); // Redis' own reason may be one that ioredis overlooks.
  }

  /**
   * An old master that has become a replica keeps its connections, and refuses all they ask for; at its address there may be
   * another one. Returns 2 where the command is to be sent again over the next connection, 1 where it has failed.
   */
  #leaves(error: Error): 1 | 2 | false {
    if (!/READONLY|MASTERDOWN|LOADING/.test(error.message)) return false;
    this.emit('error', error);
    return this.options.enableOfflineQueue ? 2 : 1;
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

/** Only a Redis with users, which is 6 or later, refuses a user the INFO. That is all that BullMQ needs to know. */
function versionOf(refusal: Error): string {
  if (!refusal.message.includes('NOPERM')) throw refusal;
  return 'redis_version:6.2.0';
}

function isSelect(command: unknown): boolean {
  return typeof command === 'object' && command !== null && 'name' in command && command.name === 'select';
}
