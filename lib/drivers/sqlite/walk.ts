// A walk through the tasks that fit a filter, in steps that look at a limited number of rows: a filter that fits few tasks does
// not hold the event loop.

import type { TaskFilter } from '../../engine/engine.js';
import { prepare, type SqliteDatabase, type SqliteStatement } from './database.js';

export type Direction = 'newest' | 'oldest';

export const beginnings = { newest: Number.MAX_SAFE_INTEGER, oldest: 0 };

export interface Step {
  /** The tasks that were found, in the order of the walk. */
  readonly seqs: number[];
  /** Where the next step begins; undefined at the end. */
  readonly next: number | undefined;
}

/** This many rows are looked at in one step, which takes about 1 ms. */
const window = 10_000;

export class Walk {
  readonly #database: SqliteDatabase;
  /** By their SQL, of which there are some dozen. */
  readonly #statements = new Map<string, SqliteStatement<Row>>();

  constructor(database: SqliteDatabase) {
    this.#database = database;
  }

  /** Finds at most `limit` tasks that fit, first those next to `from` and without that one. */
  step(direction: Direction, filter: TaskFilter, from: number, limit: number): Step {
    const [compare, order] = direction === 'newest' ? ['<', 'DESC'] : ['>', 'ASC'];
    const { place, condition } = lookFor(filter);
    const rows = `SELECT seq, state, name FROM background_tasks ${place} seq ${compare} $from ORDER BY seq ${order} LIMIT ${window}`;
    const { name } = filter;
    const found = this.#prepare(`SELECT seq FROM (${rows}) WHERE ${condition} LIMIT $limit`);
    const seqs = found.all({ from, limit, ...(name !== undefined && { name }) }).map(({ seq }) => seq);
    if (seqs.length === limit) return { seqs, next: seqs.at(-1) };
    const last = direction === 'newest' ? 'min' : 'max';
    const end = this.#prepare(`SELECT ${last}(seq) AS seq FROM (${rows}) HAVING count(*) = ${window}`);
    return { seqs, next: end.get({ from })?.seq };
  }

  #prepare(sql: string): SqliteStatement<Row> {
    const statement = this.#statements.get(sql) ?? prepare<Row>(this.#database, sql);
    this.#statements.set(sql, statement);
    return statement;
  }
}

interface Row {
  readonly seq: number;
}

/** Where to look, and what to look for there. */
function lookFor({ state, name }: TaskFilter): { place: string; condition: string } {
  const named = name === undefined ? 'TRUE' : 'name = $name';
  switch (state) {
    case undefined:
      return { place: 'WHERE', condition: named };
    case 'queued': // It is stored as one of three.
      return { place: 'WHERE', condition: `state IN ('queued', 'delayed', 'behind') AND ${named}` };
    default:
      return { place: `INDEXED BY background_tasks_${state} WHERE state = '${state}' AND`, condition: named };
  }
}
