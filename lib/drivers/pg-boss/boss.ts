// What is used of pg-boss, and the queues: one that all tasks are in, and one for the schedules.

import { unsupported } from '../../engine/calls.js';
import { isObject } from '../../foreign-value.js';
import type { StoredMessage, TakenJob } from './job.js';

export const queue = 'express-background-tasks';

/** Each job of it is a schedule, and none is ever taken. */
export const scheduleQueue = 'express-background-tasks-schedules';

/** In seconds. */
export const day = 24 * 60 * 60;

const policy = 'exclusive'; // One live job per singletonKey, from created to active.

const queueOptions = {
  policy,
  retryLimit: 2 ** 31 - 1, // For workers that die. What is a failure, and the last one, is known to our worker.
  retryDelay: 0,
  heartbeatSeconds: 15,
  expireInSeconds: day, // pg-boss's longest. A dead worker is found by its heartbeat, and a timeout is kept by a live one.
  retentionSeconds: 3650 * day, // pg-boss's default drops what has waited for 14 days.
  deleteAfterSeconds: 7 * day,
};

export interface StoredJob extends TakenJob {
  readonly data: StoredMessage;
  readonly state: string;
  readonly output: Output | null;
  readonly createdOn: Date;
  readonly startedOn: Date | null;
  readonly completedOn: Date | null;
}

/** JSON in the texts, as in {@link StoredMessage.args}. */
export interface Output {
  readonly result?: string | undefined;
  /** Of the last failure. */
  readonly error?: string;
  /** Of what has failed for good. */
  readonly attempts?: number;
  readonly progress?: string;
}

export interface Db {
  /** Set by pg-boss on the pool that it makes itself, one of node-postgres. */
  readonly _pgbdb?: boolean;
  executeSql(text: string, values?: unknown[]): Promise<{ rows: unknown[] }>;
  /** Set by us: whose transaction it is. What has been done in it is lost where a statement fails. */
  readonly transaction?: 'ours' | "the application's" | undefined;
  /** That pool has it. */
  withTransaction?<T>(call: (db: Db) => Promise<T>): Promise<T>;
}

/** What is used of pg-boss's `PgBoss`. Not imported: pg-boss's own declarations compile with `skipLibCheck` only. */
export interface Boss {
  createQueue(name: string, options: object): Promise<void>;
  getQueue(name: string): Promise<{ readonly policy?: string | undefined } | null>;
  send(name: string, data: object, options: object): Promise<string | null>;
  insert(name: string, jobs: object[], options: object): Promise<string[] | null>;
  findJobs(name: string, options: object): Promise<StoredJob[]>;
  fetch(name: string, options: object): Promise<TakenJob[]>;
  touch(name: string, jobs: TakenJob[]): Promise<unknown>;
  getDb(): Db;
  /** It came with 12.35, as did the count in {@link TakenJob}. */
  isTimekeeping(): boolean;
  on(event: 'error', listener: (error: Error) => void): unknown;
}

/** A queue, made by the first call that needs it, and anew where somebody has deleted it since. */
export class TaskQueue {
  readonly #boss: Boss;
  readonly #name: string;
  #made: Promise<void> | undefined = undefined;
  #isMade = false;

  constructor(boss: Boss, name = queue) {
    this.#boss = boss;
    this.#name = name;
  }

  /** Whether a call has made it, or has found it. */
  get isMade(): boolean {
    return this.#isMade;
  }

  async use<T>(call: () => Promise<T>): Promise<T> {
    const made = this.#make();
    await made;
    try {
      return await call();
    } catch (error) {
      if (!isQueueMissing(error, this.#name)) throw error;
      if (this.#made === made) this.#made = undefined;
      await this.#make();
      return call();
    }
  }

  #make(): Promise<void> {
    this.#made ??= this.#create().catch((error: unknown) => {
      this.#made = undefined;
      throw error;
    });
    return this.#made;
  }

  /** pg-boss leaves a queue of that name as it is, whoever has made it. */
  async #create(): Promise<void> {
    await this.#boss.createQueue(this.#name, queueOptions);
    const found = (await this.#boss.getQueue(this.#name))?.policy;
    if (found !== undefined && found !== policy) {
      const reason = `it has the policy "${found}", made by something else, and "${policy}" is needed: delete or rename it`;
      throw unsupported('pg-boss', `queue ${this.#name}`, reason);
    }
    this.#isMade = true;
  }
}

/** By pg-boss's code, by its message (before 12.38 it has no code), or by PostgreSQL's for a job without its queue. */
function isQueueMissing(error: unknown, queue: string): boolean {
  if (!isObject(error)) return false;
  const { code, message }: { code?: unknown; message?: unknown } = error;
  return code === 'PGBOSS_QUEUE_NOT_FOUND' || code === '23503' || message === `Queue ${queue} does not exist`;
}
