// The statements that look at the tasks in the queue.

import { prepare, type SqliteDatabase } from './database.js';

export interface Candidate {
  readonly seq: number;
  readonly name: string;
  readonly priority: number;
  readonly lost: number;
}

export class ReadyTable {
  readonly #first;
  readonly #firstOf;
  readonly #isAnyOf;

  constructor(database: SqliteDatabase) {
    const select = "SELECT seq, name, priority, lost FROM background_tasks WHERE state = 'queued'";
    this.#first = prepare<Candidate>(database, `${select} ORDER BY priority DESC, seq LIMIT ?`);
    this.#firstOf = prepare<Candidate>(database, `${select} AND name = ? ORDER BY priority DESC, seq LIMIT ?`);
    this.#isAnyOf = prepare(database, "SELECT 1 FROM background_tasks WHERE state = 'queued' AND name = ? LIMIT 1");
  }

  /** The first tasks of all names. */
  first(limit: number): Candidate[] {
    return this.#first.all(limit);
  }

  firstOf(name: string, limit: number): Candidate[] {
    return this.#firstOf.all(name, limit);
  }

  isAnyOf(name: string): boolean {
    return this.#isAnyOf.get(name) !== undefined;
  }
}
