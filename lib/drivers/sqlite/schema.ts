// The tables of the SQLite engine, and how files of earlier releases are upgraded.

import { BackgroundTasksError } from '../../errors.js';
import { prepare, type SqliteDatabase } from './database.js';

/**
 * Each entry leads to the next version. Outside of the table, a task that is `delayed`, or `behind` another one with its key that
 * runs, is `queued`. They have states of their own so that a worker does not step over tasks that may not run yet. The order of
 * `seq` is the order of the enqueues.
 */
const migrations: readonly ((database: SqliteDatabase) => void)[] = [makeFirstVersion, makeSecondVersion];

/** Of tasks whose key no other live task may have. */
export const holdsKey = "key IS NOT NULL AND finished_at IS NULL AND state <> 'behind'";

/** A task that waited for the end of another one may run, or goes on to wait for its time. */
function releaseBehind(row: 'NEW' | 'OLD'): string {
  const now = "CAST((julianday('now') - 2440587.5) * 86400000 AS INTEGER)";
  return `UPDATE background_tasks SET state = iif(run_at > ${now}, 'delayed', 'queued'),
      delayed_at = iif(run_at > ${now}, ${now}, NULL) WHERE key = ${row}.key AND state = 'behind';`;
}

function makeFirstVersion(database: SqliteDatabase): void {
  database.exec(`
    CREATE TABLE background_tasks (
      seq INTEGER PRIMARY KEY,
      id TEXT NOT NULL UNIQUE,
      name TEXT NOT NULL,
      args TEXT NOT NULL,
      timeout REAL,
      retries TEXT,
      priority INTEGER NOT NULL,
      key TEXT,
      state TEXT NOT NULL CHECK (state IN ('queued', 'delayed', 'running', 'succeeded', 'failed')),
      run_at INTEGER NOT NULL,
      attempts INTEGER NOT NULL DEFAULT 0,
      failures INTEGER NOT NULL DEFAULT 0,
      lost INTEGER NOT NULL DEFAULT 0,
      worker TEXT,
      lease_until INTEGER,
      result TEXT,
      error TEXT,
      enqueued_at INTEGER NOT NULL,
      started_at INTEGER,
      finished_at INTEGER
    );
    CREATE INDEX background_tasks_queued ON background_tasks (name, priority DESC, seq) WHERE state = 'queued';
    CREATE INDEX background_tasks_delayed ON background_tasks (run_at) WHERE state = 'delayed';
    CREATE INDEX background_tasks_running ON background_tasks (lease_until) WHERE state = 'running';
    CREATE INDEX background_tasks_finished ON background_tasks (finished_at) WHERE finished_at IS NOT NULL;
    CREATE UNIQUE INDEX background_tasks_key ON background_tasks (key) WHERE key IS NOT NULL AND finished_at IS NULL;`);
}

/**
 * - `seq` never repeats (AUTOINCREMENT).
 * - `times_alone` counts how often a task began alone.
 * - `lease` and `delayed_at` tell how long leases and delays are, so that a clock that was set back is noticed.
 * - `told_at` is when a task was reported that no process knows. background_tasks_names has the names that they know.
 * - `headers` are those of the message, as JSON.
 * - `is_marked` is set by `cancel()` while a task runs. `progress` is what the task last reported.
 * - Each state has an index, which SQLite counts without a look at the rows.
 * - Large columns come last: SQLite reads a row up to the last column that a statement needs.
 */
function makeSecondVersion(database: SqliteDatabase): void {
  const foreign = definitionsOfOthers(database);
  const copied = `seq, id, name, state, priority, run_at, attempts, failures, lost, worker, lease_until, timeout,
    enqueued_at, started_at, finished_at, key, retries, error, result, args`;
  database.exec(`
    CREATE TABLE background_tasks_2 (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      name TEXT NOT NULL,
      state TEXT NOT NULL
        CHECK (state IN ('queued', 'delayed', 'behind', 'running', 'succeeded', 'failed', 'cancelled')),
      priority INTEGER NOT NULL,
      run_at INTEGER NOT NULL,
      delayed_at INTEGER,
      attempts INTEGER NOT NULL DEFAULT 0,
      failures INTEGER NOT NULL DEFAULT 0,
      lost INTEGER NOT NULL DEFAULT 0,
      times_alone INTEGER NOT NULL DEFAULT 0,
      worker TEXT,
      lease_until INTEGER,
      lease INTEGER,
      timeout REAL,
      enqueued_at INTEGER NOT NULL,
      started_at INTEGER,
      finished_at INTEGER,
      told_at INTEGER,
      is_marked INTEGER NOT NULL DEFAULT 0,
      key TEXT,
      retries TEXT,
      headers TEXT,
      error TEXT,
      progress TEXT,
      result TEXT,
      args TEXT NOT NULL
    );
    INSERT INTO background_tasks_2 (${copied}, delayed_at)
      SELECT ${copied}, iif(state = 'delayed', coalesce(started_at, enqueued_at), NULL) FROM background_tasks;
    DROP TABLE background_tasks;
    ALTER TABLE background_tasks_2 RENAME TO background_tasks;
    CREATE INDEX background_tasks_queued ON background_tasks (name, priority DESC, seq) WHERE state = 'queued';
    CREATE INDEX background_tasks_first ON background_tasks (priority DESC, seq) WHERE state = 'queued';
    CREATE INDEX background_tasks_due ON background_tasks (run_at) WHERE state = 'queued';
    CREATE INDEX background_tasks_delayed ON background_tasks (run_at) WHERE state = 'delayed';
    CREATE INDEX background_tasks_delayed_at ON background_tasks (delayed_at) WHERE state = 'delayed';
    CREATE INDEX background_tasks_running ON background_tasks (lease_until, lease) WHERE state = 'running';
    CREATE INDEX background_tasks_finished ON background_tasks (finished_at) WHERE finished_at IS NOT NULL;
    CREATE INDEX background_tasks_succeeded ON background_tasks (seq) WHERE state = 'succeeded';
    CREATE INDEX background_tasks_failed ON background_tasks (seq) WHERE state = 'failed';
    CREATE INDEX background_tasks_cancelled ON background_tasks (seq) WHERE state = 'cancelled';
    CREATE UNIQUE INDEX background_tasks_key ON background_tasks (key) WHERE ${holdsKey};
    CREATE UNIQUE INDEX background_tasks_behind ON background_tasks (key) WHERE state = 'behind';
    CREATE TRIGGER background_tasks_ended AFTER UPDATE OF finished_at ON background_tasks
      WHEN NEW.key IS NOT NULL AND NEW.finished_at IS NOT NULL AND OLD.finished_at IS NULL BEGIN ${releaseBehind('NEW')} END;
    CREATE TRIGGER background_tasks_removed AFTER DELETE ON background_tasks
      WHEN OLD.key IS NOT NULL AND OLD.finished_at IS NULL BEGIN ${releaseBehind('OLD')} END;
    CREATE TABLE background_tasks_schedules (
      name TEXT PRIMARY KEY,
      definition TEXT NOT NULL,
      next INTEGER NOT NULL
    );
    CREATE TABLE background_tasks_names (
      process TEXT PRIMARY KEY,
      names TEXT NOT NULL,
      noted_at INTEGER NOT NULL,
      valid_for INTEGER NOT NULL
    );`);
  for (const sql of foreign) database.exec(sql);
}

/** The application's own indexes and triggers on the table of the first version. */
function definitionsOfOthers(database: SqliteDatabase): string[] {
  const own = ['queued', 'delayed', 'running', 'finished', 'key'].map((name) => `'background_tasks_${name}'`);
  const select = prepare<{ sql: string }>(
    database,
    `SELECT sql FROM sqlite_master WHERE tbl_name = 'background_tasks' AND type IN ('index', 'trigger')
     AND sql IS NOT NULL AND name NOT IN (${own})`,
  );
  return select.all().map(({ sql }) => sql);
}

/**
 * Makes the tables or upgrades them. The version is in a table of its own, since `user_version` belongs to the application.
 *
 * @throws BackgroundTasksError `ERR_ENGINE_UNAVAILABLE` if a newer release has made the tables.
 */
export function migrate(database: SqliteDatabase): void {
  withoutRewriting(database, () => {
    try {
      database.exec('BEGIN IMMEDIATE');
      database.exec('CREATE TABLE IF NOT EXISTS background_tasks_schema (version INTEGER NOT NULL)');
      const select = prepare<{ version: number }>(database, 'SELECT version FROM background_tasks_schema');
      migrateFrom(select.get()?.version ?? 0, database);
      database.exec('COMMIT');
    } catch (error) {
      if (database.inTransaction) database.exec('ROLLBACK');
      throw error;
    }
  });
}

function migrateFrom(version: number, database: SqliteDatabase): void {
  if (version > migrations.length) {
    throw new BackgroundTasksError(
      'ERR_ENGINE_UNAVAILABLE',
      `sqlite: the table is of version ${version}, made by a newer release than this one, which knows ${migrations.length}`,
    );
  }
  if (version === migrations.length) return;
  for (const migration of migrations.slice(version)) migration(database);
  database.exec('DELETE FROM background_tasks_schema');
  database.exec(`INSERT INTO background_tasks_schema VALUES (${migrations.length})`);
}

/**
 * While a table is replaced by its copy, foreign keys of the application must not act on the removed rows, and its views must
 * not be rewritten (https://sqlite.org/lang_altertable.html).
 */
function withoutRewriting(database: SqliteDatabase, change: () => void): void {
  const keys = setting(database, 'foreign_keys');
  const legacy = setting(database, 'legacy_alter_table');
  database.exec('PRAGMA foreign_keys = OFF; PRAGMA legacy_alter_table = ON');
  try {
    change();
  } finally {
    database.exec(`PRAGMA foreign_keys = ${keys}; PRAGMA legacy_alter_table = ${legacy}`);
  }
}

function setting(database: SqliteDatabase, name: string): number {
  return prepare<Record<string, number>>(database, `PRAGMA ${name}`).get()?.[name] ?? 0;
}
