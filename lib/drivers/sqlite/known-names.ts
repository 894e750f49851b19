// The names that the workers of each process know. Each process notes them in the file, for the others.

import { randomUUID } from 'node:crypto';
import { prepare, type SqliteDatabase } from './database.js';

export class KnownNames {
  readonly #process = randomUUID();
  readonly #repair;
  readonly #remove;
  readonly #note;
  readonly #select;

  constructor(database: SqliteDatabase) {
    this.#repair = prepare(database, 'UPDATE background_tasks_names SET noted_at = $now WHERE noted_at > $now');
    this.#remove = prepare(database, 'DELETE FROM background_tasks_names WHERE noted_at + valid_for <= $now');
    this.#note = prepare(
      database,
      `INSERT INTO background_tasks_names (process, names, noted_at, valid_for) VALUES ($process, $names, $now, $validFor)
       ON CONFLICT DO UPDATE SET names = excluded.names, noted_at = excluded.noted_at, valid_for = excluded.valid_for`,
    );
    this.#select = prepare<{ names: string }>(
      database,
      'SELECT names FROM background_tasks_names WHERE process <> $process AND noted_at + valid_for > $now',
    );
  }

  /** Notes the names of this process for this many ms. Removes expired notes, and repairs those of a clock that was set back. */
  note(names: readonly string[], now: number, validFor: number): void {
    this.#repair.run({ now });
    this.#remove.run({ now });
    this.#note.run({ process: this.#process, names: JSON.stringify(names), now, validFor: Math.ceil(validFor) });
  }

  ofOthers(now: number): Set<string> {
    const notes = this.#select.all({ process: this.#process, now });
    return new Set(notes.flatMap(({ names }): string[] => JSON.parse(names)));
  }
}
