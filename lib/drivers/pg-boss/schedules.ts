// Schedules: jobs of a queue of their own, so late that none is ever taken. Their times are worked out by the engine.

import type { ScheduleStore, StoredSchedule } from '../../engine/driver.js';
import type { TaskMessage } from '../../engine/message.js';
import { startAfterBehind } from './behind.js';
import { type Boss, type Db, scheduleQueue, TaskQueue } from './boss.js';
import { inTransaction, unlessExpired } from './connections.js';
import type { Inserts } from './inserts.js';
import { hash, jobOf } from './new-job.js';
import type { JobTable } from './table.js';

export class PgBossSchedules implements ScheduleStore {
  readonly #boss: Boss;
  /** The queue of the tasks. */
  readonly #tasks: TaskQueue;
  readonly #schedules: TaskQueue;
  readonly #table: JobTable;
  readonly #inserts: Inserts;

  constructor(boss: Boss, tasks: TaskQueue, table: JobTable, inserts: Inserts) {
    this.#boss = boss;
    this.#tasks = tasks;
    this.#schedules = new TaskQueue(boss, scheduleQueue);
    this.#table = table;
    this.#inserts = inserts;
  }

  async list(due?: number): Promise<StoredSchedule[]> {
    const rows = await this.#tasks.use(() =>
      this.#table.query<StoredSchedule>(
        ({ allJobs }) => `SELECT data->>'name' AS name, data->>'definition' AS definition, ${next} AS next
          FROM ${allJobs} WHERE ${isSchedule} AND ($2::float8 IS NULL OR ${next} <= $2::float8)`,
        [scheduleQueue, due ?? null],
      ),
    );
    return rows.map((row) => ({ ...row, name: JSON.parse(row.name) }));
  }

  async put(schedule: StoredSchedule, expired: AbortSignal): Promise<void> {
    const data = dataOf(schedule);
    const singletonKey = hash(schedule.name);
    const db = unlessExpired(this.#boss.getDb(), expired);
    await this.#tasks.use(async () => {
      while (true) {
        expired.throwIfAborted();
        const replaced = await this.#table.query(
          ({ allJobs }) => `UPDATE ${allJobs} SET data = $2::text::jsonb
            WHERE ${isSchedule} AND singleton_key = $3 RETURNING id`,
          [scheduleQueue, JSON.stringify(data), singletonKey],
          db,
        );
        if (replaced.length > 0) return;
        const options = { singletonKey, startAfter: startAfterBehind(0), db };
        const id = await this.#schedules.use(() => this.#boss.send(scheduleQueue, data, options));
        if (id !== null) return;
      }
    });
  }

  async delete(name: string): Promise<boolean> {
    const deleted = await this.#tasks.use(() =>
      this.#table.query(
        ({ allJobs }) => `DELETE FROM ${allJobs} WHERE ${isSchedule} AND singleton_key = $2 RETURNING id`,
        [scheduleQueue, hash(name)],
      ),
    );
    return deleted.length > 0;
  }

  async advance(schedule: StoredSchedule, next: number, message: TaskMessage, expired: AbortSignal): Promise<void> {
    const job = jobOf(message);
    await this.#tasks.use(() =>
      inTransaction(this.#boss.getDb(), async (db) => {
        if (!(await this.#lock(schedule, db))) return;
        await this.#inserts.insert(job, expired, db);
        await this.#move(schedule, next, db);
      }),
    );
  }

  /** False if it has changed. Where there is no transaction, two may find it unchanged, and the id lets one of them store. */
  async #lock(schedule: StoredSchedule, db: Db): Promise<boolean> {
    const found = await this.#table.query(
      ({ allJobs }) => `SELECT id FROM ${allJobs} WHERE ${isSchedule} AND ${isUnchanged} FOR UPDATE`,
      [scheduleQueue, ...valuesOf(schedule)],
      db,
    );
    return found.length > 0;
  }

  async #move(schedule: StoredSchedule, next: number, db: Db): Promise<void> {
    await this.#table.query(
      ({ allJobs }) => `UPDATE ${allJobs} SET data = $5::text::jsonb WHERE ${isSchedule} AND ${isUnchanged}`,
      [scheduleQueue, ...valuesOf(schedule), JSON.stringify(dataOf({ ...schedule, next }))],
      db,
    );
  }
}

const isSchedule = "name = $1 AND state = 'created'";
const next = "(data->>'next')::float8";
const isUnchanged = `singleton_key = $2 AND data->>'definition' = $3 AND ${next} = $4::float8`;

function valuesOf({ name, definition, next }: StoredSchedule): unknown[] {
  return [hash(name), definition, next];
}

/** The name is JSON, since PostgreSQL holds neither NUL nor half a surrogate pair. */
function dataOf({ name, definition, next }: StoredSchedule): object {
  return { name: JSON.stringify(name), definition, next };
}
