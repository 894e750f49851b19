// A job that a worker has taken: how it is counted, and how it goes back to the queue. A script does nothing once the worker has
// lost the job's lock.

import { DelayedError, type Job, WaitingError } from 'bullmq';
import { sleep, wallClockTime } from '../../clock.js';
import { isGivenUp } from '../../engine/deaths.js';
import type { TaskInfo } from '../../task/types.js';
import type { Connection } from './connection.js';
import { attemptOf, type StoredMessage } from './job.js';

export class HeldJob {
  readonly #job: Job<StoredMessage>;
  readonly #token: string;
  readonly #connection: Connection;
  readonly #key: string;
  readonly #markerKey: string;
  #begins: Promise<boolean> | undefined = undefined;
  #timesAlone = 0;

  constructor(job: Job<StoredMessage>, token: string, connection: Connection, keyOf: (type: string) => string) {
    this.#job = job;
    this.#token = token;
    this.#connection = connection;
    this.#key = keyOf(job.id ?? '');
    this.#markerKey = keyOf('marker');
  }

  get info(): TaskInfo {
    return { id: this.#job.id ?? '', name: this.#job.name, attempt: attemptOf(this.#job) };
  }

  /** Counts in a job of 0.1.0 as this version does. */
  async adopt(): Promise<void> {
    const { unused = 0, ...data } = this.#job.data;
    this.#job.attemptsStarted -= unused;
    await this.#count(scripts.adopt, unused, JSON.stringify(data));
  }

  /** How many of its workers have died while it ran alone, once {@link beginAlone} has looked. */
  get timesAlone(): number {
    return this.#timesAlone;
  }

  /** Resolves with false if it has begun alone too often, or if the worker has lost it. */
  beginAlone(): Promise<boolean> {
    this.#begins = this.#beginAlone();
    return this.#begins;
  }

  async #beginAlone(): Promise<boolean> {
    this.#timesAlone = Number(await this.#connection.hget(this.#key, 'tasks:alone'));
    return !isGivenUp(this.#timesAlone) && (await this.#run(scripts.beginAlone)) === 1;
  }

  /** To be called when an attempt has failed. Its worker lived to tell that, so the task is no suspect any more. */
  async hasFailed(): Promise<void> {
    if (this.#job.stalledCounter > 0) await this.#count(scripts.clear);
  }

  /** Counts that it was taken and not begun. */
  async unbegun(): Promise<void> {
    this.#job.attemptsStarted--;
    await this.#count(scripts.unbegun);
  }

  /**
   * Counts that the worker does not run it. `isKnown`: a worker of some process knows its name. `isUntold`: none does, and nobody
   * has reported that since this time of the wall clock, so the caller is to report it.
   */
  async refused(nameKey: string, toldSince: number): Promise<Refusal> {
    const answer = await this.#run(scripts.refused, [nameKey], toldSince, wallClockTime()).catch(() => {
      throw new DelayedError();
    });
    const [times, isKnown, isUntold]: unknown[] = Array.isArray(answer) ? answer : [];
    return { times: Number(times), isKnown: isKnown === 1, isUntold: isUntold === 1 };
  }

  /** As if it had not been taken. */
  async putBack(): Promise<never> {
    await this.unbegun();
    return this.toFront();
  }

  /** To run again elsewhere. Its worker lives, so it does not count that the task had begun alone. */
  async giveBack(): Promise<never> {
    if (await this.#begins?.catch(() => false)) await this.#count(scripts.notAlone);
    return this.toFront();
  }

  // If one of these fails, the lock expires and another worker takes the job. `rest`: how long the slot takes no other one, in ms.

  async toFront(rest = 0): Promise<never> {
    await this.#toFront().catch(ignore);
    await sleep(rest);
    throw new WaitingError();
  }

  async #toFront(): Promise<void> {
    await this.#job.moveToWait(this.#token);
    await this.#connection.zadd(this.#markerKey, 0, '0'); // BullMQ wakes nobody for a job that has a priority.
  }

  async delay(ms: number, rest = 0): Promise<never> {
    await this.#job.moveToDelayed(wallClockTime() + Math.ceil(ms), this.#token).catch(ignore);
    await sleep(rest);
    throw new DelayedError();
  }

  /** If Redis refuses, a count is wrong. The task must not fail for that. */
  async #count(script: string, ...args: (string | number)[]): Promise<void> {
    await this.#run(script, [], ...args).catch(ignore);
  }

  #run(script: string, moreKeys: string[] = [], ...args: (string | number)[]): Promise<unknown> {
    const keys = [this.#key, `${this.#key}:lock`, ...moreKeys];
    return this.#connection.eval(fence + script, keys.length, ...keys, this.#token, ...args);
  }
}

export interface Refusal {
  readonly times: number;
  readonly isKnown: boolean;
  readonly isUntold: boolean;
}

const ignore = (): void => {};

const fence = `if redis.call('GET', KEYS[2]) ~= ARGV[1] then return false end `;
const scripts = {
  adopt: `redis.call('HINCRBY', KEYS[1], 'ats', -ARGV[2]) redis.call('HSET', KEYS[1], 'data', ARGV[3])`,
  beginAlone: `redis.call('HINCRBY', KEYS[1], 'tasks:alone', 1) return 1`,
  notAlone: `return redis.call('HINCRBY', KEYS[1], 'tasks:alone', -1)`,
  clear: `redis.call('HDEL', KEYS[1], 'stc', 'tasks:alone')`,
  unbegun: `return redis.call('HINCRBY', KEYS[1], 'ats', -1)`,
  refused: `
    local isKnown = redis.call('EXISTS', KEYS[3])
    local isUntold = 0
    if isKnown == 0 and tonumber(redis.call('HGET', KEYS[1], 'tasks:told') or '0') < tonumber(ARGV[2]) then
      redis.call('HSET', KEYS[1], 'tasks:told', ARGV[3])
      isUntold = 1
    end
    redis.call('HINCRBY', KEYS[1], 'ats', -1)
    return { redis.call('HINCRBY', KEYS[1], 'tasks:refused', 1), isKnown, isUntold }`,
};
