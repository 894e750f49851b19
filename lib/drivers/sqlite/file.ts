// Opens a file by better-sqlite3, and closes one whose log may be that of another connection by now.

import { closeSync, openSync } from 'node:fs';
import Database from 'better-sqlite3';
import { BackgroundTasksError } from '../../errors.js';
import { migrate } from './schema.js';

/** The name of a database without a file. */
export const memory = ':memory:';

/** For how long opening waits for others, in ms. It blocks the event loop. */
const patience = { first: 5000, again: 50 };

/** After its checkpoint the log is cut down to this many bytes. SQLite by itself leaves it as large as it ever was. */
const longestLog = 16 * 1024 * 1024;

/** Opens the file, and makes it where it does not exist: for its owner only. */
export function openFile(path: string, { isFirst }: { readonly isFirst: boolean }): Database.Database {
  checkVersion();
  makePrivate(path);
  const database = new Database(path, { timeout: isFirst ? patience.first : patience.again });
  try {
    database.pragma('journal_mode = WAL');
    database.pragma(`journal_size_limit = ${longestLog}`);
    migrate(database);
    // From here on a lock is waited for without blocking the event loop.
    database.pragma('busy_timeout = 0');
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Closes a connection as if it were not the last one. The last one writes the log back and removes it, and here that may be
 * the log of somebody else: the locks that would tell are lost. SQLite does neither while the process has another connection to
 * the file, and that one does not touch the log, since it asks in vain to be the only one.
 */
export function closeAside(database: Database.Database, path: string): void {
  let other: Database.Database | undefined;
  try {
    other = new Database(path, { fileMustExist: true, timeout: 0 });
    other.pragma('locking_mode = EXCLUSIVE');
    other.prepare('SELECT 1 FROM sqlite_master').get();
  } catch {
    // As it should be.
  }
  database.close();
  other?.close();
}

function makePrivate(path: string): void {
  if (path === memory) return;
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch {
    // It exists, or SQLite says what is wrong.
  }
}

function checkVersion(): void {
  const major = installedMajor();
  if (major >= 13 && Number.parseInt(process.versions.node, 10) < 22) {
    // It would end the process with a segmentation fault, which nobody can catch.
    throw new BackgroundTasksError(
      'ERR_ENGINE_UNAVAILABLE',
      `sqlite: better-sqlite3 ${major} needs Node.js 22 or later; on Node.js 20 install better-sqlite3@12`,
    );
  }
}

/** Of better-sqlite3. 0 where it does not say so. */
function installedMajor(): number {
  try {
    const { version }: { version: string } = require('better-sqlite3/package.json');
    return Number.parseInt(version, 10);
  } catch {
    return 0;
  }
}
