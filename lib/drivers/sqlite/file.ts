// Opens a file with better-sqlite3, and closes one whose log may belong to another connection by now.

import { closeSync, openSync } from 'node:fs';
import type { Library, OwnDatabase } from './library.js';
import { migrate } from './schema.js';

/** The name of a database without a file. */
export const memory = ':memory:';

/** How long opening waits for a lock, in ms. It blocks the event loop. */
const patience = { first: 5000, again: 50 };

/** The log is truncated to this many bytes after a checkpoint. Otherwise it would keep its largest size. */
const longestLog = 16 * 1024 * 1024;

/** In KiB, as better-sqlite3 has it. With the 2 MB of node:sqlite, counting a million tasks takes twice as long. */
const cacheSize = 16_000;

/** Opens the file. If it does not exist, it is created so that only its owner can read it. */
export function openFile(library: Library, path: string, { isFirst }: { readonly isFirst: boolean }): OwnDatabase {
  if (isFirst) library(memory, { timeout: 0 }).close(); // Where the library cannot be loaded, no empty file is left behind.
  makePrivate(path);
  const database = library(path, { timeout: isFirst ? patience.first : patience.again });
  try {
    database.exec('PRAGMA journal_mode = WAL');
    database.exec(`PRAGMA cache_size = -${cacheSize}`);
    database.exec(`PRAGMA journal_size_limit = ${longestLog}`);
    migrate(database);
    // From here on, waiting for a lock does not block the event loop.
    database.exec('PRAGMA busy_timeout = 0');
    return database;
  } catch (error) {
    database.close();
    throw error;
  }
}

/**
 * Closes a connection without writing its log back and removing it, as SQLite does with the last connection to a file: after the
 * locks are lost, that may be the log of another connection. While the process has a second connection, SQLite does neither. The
 * second connection does not open the log, since its request for an exclusive lock fails.
 */
export function closeAside(library: Library, database: OwnDatabase, path: string): void {
  let other: OwnDatabase | undefined;
  try {
    other = library(path, { mustExist: true, timeout: 0 });
    other.exec('PRAGMA locking_mode = EXCLUSIVE');
    other.prepare('SELECT 1 FROM sqlite_master').get();
  } catch {
    // The request has failed, as it should.
  }
  database.close();
  other?.close();
}

function makePrivate(path: string): void {
  if (path === memory) return;
  try {
    closeSync(openSync(path, 'wx', 0o600));
  } catch {
    // The file exists, or SQLite will say what is wrong.
  }
}
