// What an engine needs of its connection to a database, and the application's own connection as one.

import type { SqliteDatabase } from './database.js';
import { OpenFiles } from './open-files.js';
import { migrate } from './schema.js';

export interface Connection {
  readonly database: SqliteDatabase;
  /** Why what was written just now may not be found by others. */
  fault(): Error | undefined;
  /** Throws where what is written now may not be found by others. */
  ensure(): void;
  /**
   * Says whether the next commits are to wait until the disk has them. In WAL mode a commit that waits takes along all commits
   * before it, so that those of workers need not wait. With ten tasks at a time this is 13,000 tasks a second instead of 1,800,
   * and the event loop does not stand still at the end of each.
   */
  setDurable(isDurable: boolean): void;
  close(): void;
}

/** The application's pragmas, and its files: where they are lost, nothing is stored until the application opens them anew. */
export class ApplicationConnection implements Connection {
  readonly database: SqliteDatabase;
  readonly #files: OpenFiles;

  constructor(database: SqliteDatabase) {
    migrate(database);
    this.database = database;
    this.#files = new OpenFiles(database);
  }

  fault(): Error | undefined {
    const fault = this.#files.fault();
    return fault && new Error(`${fault.message}; the application has to open its database anew`);
  }

  ensure(): void {
    const fault = this.fault();
    if (fault !== undefined) throw fault;
  }

  setDurable(): void {}

  close(): void {
    this.#files.close();
  }
}
