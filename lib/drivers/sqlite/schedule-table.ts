// The schedules in the database.

import type { StoredSchedule } from '../../engine/driver.js';
import { prepare, type SqliteDatabase } from './database.js';

export class ScheduleTable {
  readonly #list;
  readonly #put;
  readonly #delete;
  readonly #advance;

  constructor(database: SqliteDatabase) {
    this.#list = prepare<StoredSchedule>(
      database,
      'SELECT name, definition, next FROM background_tasks_schedules WHERE next <= ? ORDER BY name',
    );
    this.#put = prepare(
      database,
      `INSERT INTO background_tasks_schedules (name, definition, next) VALUES ($name, $definition, $next)
       ON CONFLICT (name) DO UPDATE SET definition = $definition, next = $next`,
    );
    this.#delete = prepare(database, 'DELETE FROM background_tasks_schedules WHERE name = ?');
    this.#advance = prepare(
      database,
      'UPDATE background_tasks_schedules SET next = ? WHERE name = ? AND definition = ? AND next = ?',
    );
  }

  list(due = Number.MAX_SAFE_INTEGER): StoredSchedule[] {
    return this.#list.all(due);
  }

  put({ name, definition, next }: StoredSchedule): void {
    this.#put.run({ name, definition, next });
  }

  delete(name: string): boolean {
    return this.#delete.run(name).changes === 1;
  }

  /** Returns false where it has changed meanwhile. */
  advance({ name, definition, next }: StoredSchedule, following: number): boolean {
    return this.#advance.run(following, name, definition, next).changes === 1;
  }
}
