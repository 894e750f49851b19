// Stores tasks, on pg-boss's connection or on that of a transaction.

import { sleep } from '../../clock.js';
import { isObject } from '../../foreign-value.js';
import { keyBehind, releaseStatement, startAfterBehind } from './behind.js';
import { type Boss, type Db, queue } from './boss.js';
import { unlessExpired } from './connections.js';
import type { NewJob } from './new-job.js';
import type { JobTable } from './table.js';

interface Holder {
  readonly id: string;
  readonly is_running: boolean;
}

export class Inserts {
  readonly #boss: Boss;
  readonly #table: JobTable;

  constructor(boss: Boss, table: JobTable) {
    this.#boss = boss;
    this.#table = table;
  }

  /** Resolves with the id of the task, or of the one that has its key. */
  async insert(job: NewJob, expired: AbortSignal, transaction?: Db): Promise<string> {
    const db = transaction ?? unlessExpired(this.#boss.getDb(), expired);
    while (true) {
      expired.throwIfAborted();
      const id = (await this.#send(job, db)) ?? (await this.#findOrStandBehind(job, db, expired));
      if (id !== undefined) return id;
      await sleep(10); // What had its key has ended in between.
    }
  }

  /** All of them, or none. Of those that have no key. */
  async insertMany(jobs: readonly NewJob[], expired: AbortSignal, transaction?: Db): Promise<string[]> {
    const db = transaction ?? unlessExpired(this.#boss.getDb(), expired);
    await this.#boss.insert(
      queue,
      jobs.map(({ isAgain: _isAgain, ...job }) => job),
      { db },
    );
    return jobs.map(({ id }) => id);
  }

  /** Queues the tasks behind others whose keys are free, or all of those. Resolves with how many. */
  async release(keys?: readonly string[], db?: Db): Promise<number> {
    try {
      const values = [queue, keys === undefined ? null : JSON.stringify(keys)];
      return (await this.#table.query(releaseStatement, values, db)).length;
    } catch (error) {
      if (isKeyTaken(error) && db?.transaction === undefined) return 0; // By a task whose end will release them.
      throw error;
    }
  }

  #send({ data, isAgain: _isAgain, ...options }: NewJob, db: Db): Promise<string | null> {
    return this.#boss.send(queue, data, { ...options, db });
  }

  async #findOrStandBehind(job: NewJob, db: Db, expired: AbortSignal): Promise<string | undefined> {
    const [holder] = await this.#table.query<Holder>(
      // By the primary key, and by the index that keeps the keys apart.
      ({ jobs }) => `SELECT id, false AS is_running FROM ${jobs} WHERE name = $1::text AND id = $2::text::uuid
        UNION ALL
        SELECT id, state = 'active' AS is_running FROM ${jobs}
        WHERE name = $1::text AND policy = 'exclusive' AND state <= 'active' AND COALESCE(singleton_key, '') = $3::text
        LIMIT 1`,
      [queue, job.id, job.singletonKey],
      db,
    );
    if (holder === undefined || holder.id === job.id || !job.isAgain) return holder?.id;
    if (!holder.is_running) return (await this.#renew(job, db)) ?? holder.id;
    // The task that runs must not have to wait for the end of a transaction that is the application's.
    if (db.transaction === "the application's") return this.#standBehind(job, db);
    if (db.transaction === 'ours') return this.#standBehindRunning(job, db);
    try {
      return await this.#table.transaction((own) => this.#standBehindRunning(job, unlessExpired(own, expired)));
    } catch (error) {
      if (isDeadlock(error)) return undefined;
      throw error;
    }
  }

  /** Undefined where none runs any more. */
  async #standBehindRunning(job: NewJob, db: Db): Promise<string | undefined> {
    const running = await this.#table.query(
      ({ jobs }) => `SELECT id FROM ${jobs} WHERE name = $1::text AND policy = 'exclusive' AND state = 'active'
        AND COALESCE(singleton_key, '') = $2::text FOR SHARE`,
      [queue, job.singletonKey],
      db,
    );
    if (running.length === 0) return undefined;
    const id = await this.#standBehind(job, db);
    // Where there is no transaction, it may have ended before that was stored.
    if (id !== undefined && db.transaction === undefined) await this.release([job.singletonKey], db);
    return id;
  }

  async #standBehind(job: NewJob, db: Db): Promise<string | undefined> {
    const { data, priority, startAfter, group, isAgain: _isAgain } = job;
    const singletonKey = keyBehind(job.singletonKey);
    const options = { id: job.id, singletonKey, startAfter: startAfterBehind(startAfter), priority, group, db };
    return (await this.#boss.send(queue, data, options)) ?? (await this.#renew(job, db));
  }

  /** Gives the task that stands behind already the newest arguments. Undefined where there is none. */
  async #renew({ data, singletonKey, priority, startAfter, group }: NewJob, db: Db): Promise<string | undefined> {
    const [renewed] = await this.#table.query<{ id: string }>(
      ({ jobs, now }) => `UPDATE ${jobs} SET data = $3::text::jsonb, group_id = $4::text, priority = $5::text::int,
          start_after = ${now} + $6::text::interval
        WHERE name = $1::text AND state = 'created' AND singleton_key = $2::text RETURNING id`,
      [queue, keyBehind(singletonKey), JSON.stringify(data), group.id, String(priority), startAfterBehind(startAfter)],
      db,
    );
    return renewed?.id;
  }
}

// https://www.postgresql.org/docs/current/errcodes-appendix.html

export function isKeyTaken(error: unknown): boolean {
  return isObject(error) && 'code' in error && error.code === '23505';
}

/** Of two statements that change the same rows one has been ended, and changes nothing. */
export function isDeadlock(error: unknown): boolean {
  return isObject(error) && 'code' in error && error.code === '40P01';
}
