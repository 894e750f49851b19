// A job that a worker has taken, and what becomes of it other than an end of BullMQ's. Nothing happens to it once its lock is not
// this worker's any more.

import { DelayedError, type Job } from 'bullmq';
import { sleep, wallClockTime } from '../../clock.js';
import { isGivenUp } from '../../engine/deaths.js';
import type { TaskInfo } from '../../task/types.js';
import type { Connection } from './connection.js';
import { attemptOf, type StoredMessage } from './job.js';
import type { ScriptName, Scripts } from './scripts/index.js';

/** What is to be kept of a failure. */
export interface Failure {
  readonly reason: string;
  readonly stack: string | undefined;
}

/** For {@link HeldJob.putBack}: in front of those of its priority. */
const front = -1;

export class HeldJob {
  readonly #job: Job<StoredMessage>;
  readonly #id: string;
  readonly #token: string;
  readonly #connection: Connection;
  readonly #scripts: Scripts;
  readonly #key: string;
  #begins: Promise<boolean> | undefined = undefined;
  #timesAlone = 0;

  constructor(job: Job<StoredMessage>, token: string, connection: Connection, scripts: Scripts, key: string) {
    this.#job = job;
    this.#id = job.id ?? '';
    this.#token = token;
    this.#connection = connection;
    this.#scripts = scripts;
    this.#key = key;
  }

  get info(): TaskInfo {
    return { id: this.#id, name: this.#job.name, attempt: attemptOf(this.#job) };
  }

  /** Counts in a job of 0.1.0 as this version does. */
  async adopt(): Promise<void> {
    const { unused = 0, ...data } = this.#job.data;
    this.#job.attemptsStarted -= unused;
    await this.#run('adopt', unused, JSON.stringify(data)).catch(ignore);
  }

  /**
   * Ends a task that was cancelled while it ran, and whose worker has died since. Any other is ended when it is put back. Where
   * Redis does not tell, the task is left alone until its lock ends.
   */
  async isCancelled(): Promise<boolean> {
    return this.#job.stalledCounter > 0 && (await this.#run('endIfMarked').catch(() => 1)) === 1;
  }

  /** Whether it is to be cancelled. Its worker may not have heard of it yet. */
  async isMarked(): Promise<boolean> {
    return (await this.#connection.hexists(this.#key, 'tasks:marked').catch(() => 0)) === 1;
  }

  /** How many of its workers have died while it ran alone, once {@link beginAlone} has looked. */
  get timesAlone(): number {
    return this.#timesAlone;
  }

  /** Resolves with false where it has begun alone too often, or is not this worker's any more. */
  beginAlone(): Promise<boolean> {
    this.#begins = this.#beginAlone();
    return this.#begins;
  }

  async #beginAlone(): Promise<boolean> {
    this.#timesAlone = Number(await this.#connection.hget(this.#key, 'tasks:alone'));
    return !isGivenUp(this.#timesAlone) && (await this.#run('beginAlone')) === 1;
  }

  /** Counts that it was taken and not begun. Where Redis refuses, a count is wrong. That must not be the end of the task. */
  async unbegun(): Promise<void> {
    this.#job.attemptsStarted--;
    await this.#run('unbegun').catch(ignore);
  }

  /**
   * Counts that it was refused. Resolves with how often it has been, whether a worker of any process knows its name, and if none
   * does, whether nobody has been told since then, a time of the wall clock: who asks is to tell it.
   */
  async refused(nameKey: string, toldSince: number): Promise<Refusal> {
    const answer = await this.#run('refused', nameKey, toldSince).catch(() => {
      throw new DelayedError();
    });
    const [times, isKnown, isUntold]: unknown[] = Array.isArray(answer) ? answer : [];
    return { times: Number(times), isKnown: isKnown === 1, isUntold: isUntold === 1 };
  }

  // What follows takes it from this worker, and throws what tells BullMQ so. One that is marked ends as cancelled instead of being
  // put back. If it cannot be done, the lock ends and another worker takes the job.

  /** As if it had not been taken. `ms`: for so long nobody takes it. `rest`: ms for which the slot takes no other one. */
  async putBack(ms = front, rest = 0): Promise<never> {
    this.#job.attemptsStarted--;
    await this.#putBack(ms, { ats: -1 });
    await sleep(rest);
    throw new DelayedError();
  }

  /** Its worker lives, so that it began alone does not count. */
  async giveBack(): Promise<never> {
    const hasBegunAlone = (await this.#begins?.catch(() => false)) ?? false;
    await this.#putBack(front, { alone: hasBegunAlone ? -1 : 0 });
    throw new DelayedError();
  }

  /** Its worker lived to tell that it failed, so it is no suspect any more. */
  async retryIn(ms: number, { reason, stack }: Failure): Promise<never> {
    const wait = Math.ceil(ms);
    const stacktrace = JSON.stringify(stack === undefined ? [] : [stack]);
    const fields = ['failedReason', reason, 'stacktrace', stacktrace, 'tasks:due', wallClockTime() + wait];
    await this.#putBack(wait, { atm: 1 }, fields);
    throw new DelayedError();
  }

  async endAsCancelled(): Promise<never> {
    await this.#run('endAsCancelled').catch(ignore);
    throw new DelayedError();
  }

  #run(name: ScriptName, ...args: readonly (string | number)[]): Promise<unknown> {
    return this.#scripts.run(name, [this.#id, this.#token, ...args]);
  }

  async #putBack(ms: number, { ats = 0, atm = 0, alone = 0 }: Counts, fields: (string | number)[] = []): Promise<void> {
    await this.#run('putBack', ms, ats, atm, alone, ...fields).catch(ignore);
  }
}

/** What to add to the counters of a job that is put back. */
interface Counts {
  readonly ats?: number;
  readonly atm?: number;
  readonly alone?: number;
}

export interface Refusal {
  readonly times: number;
  readonly isKnown: boolean;
  readonly isUntold: boolean;
}

const ignore = (): void => {};
