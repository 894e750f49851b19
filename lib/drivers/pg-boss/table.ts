// pg-boss's table of jobs, for statements of our own: pg-boss has no call for most of what is asked of it.

import { randomUUID } from 'node:crypto';
import { type Boss, type Db, queue } from './boss.js';
import { inTransaction } from './connections.js';

/** As statements write them. */
export interface Names {
  /** The table that our queue is in. */
  readonly jobs: string;
  /** The one that all queues are in. */
  readonly allJobs: string;
  readonly state: string;
  /** pg-boss's clock, which its tests may set. */
  readonly now: string;
}

export class JobTable {
  readonly #boss: Boss;

  constructor(boss: Boss) {
    this.#boss = boss;
  }

  async query<Row>(text: (names: Names) => string, values: unknown[], db: Db = this.#boss.getDb()): Promise<Row[]> {
    const { rows } = await db.executeSql(text(await this.#names()), values);
    return rows as Row[];
  }

  /** On a `db` of the user's own each statement of the call stands for itself. */
  transaction<T>(call: (db: Db) => Promise<T>): Promise<T> {
    return inTransaction(this.#boss.getDb(), call);
  }

  /** As pg-boss itself writes them, with the schema. A queue that was deleted and made anew may be in another table. */
  async #names(): Promise<Names> {
    let search = '';
    const executeSql = async (text: string): Promise<{ rows: never[] }> => {
      search = text;
      return { rows: [] };
    };
    await this.#boss.findJobs(queue, { id: randomUUID(), db: { executeSql } });
    const jobs = /\bFROM\s+(\S.*?)\s+WHERE\b/.exec(search)?.[1];
    if (jobs === undefined) throw new Error('this version of pg-boss does not tell the name of its table');
    const schema = jobs.slice(0, jobs.lastIndexOf('.'));
    return { jobs, allJobs: `${schema}.job`, state: `${schema}.job_state`, now: `${schema}.job_now()` };
  }
}

/** As text, whatever the connection's own format and time zone. */
export const utc = (time: string): string => `to_char(${time} AT TIME ZONE 'UTC', 'YYYY-MM-DD"T"HH24:MI:SS.US"Z"')`;

/** The ids that a value lists as JSON, which every adapter can hand over. */
export const listed = (value: string): string => `(SELECT json_array_elements_text(${value}::text::json)::uuid)`;

/** A place in an order by time and id. */
export interface Position {
  /** UTC, with microseconds. */
  readonly at: string;
  readonly id: string;
}

export const firstPosition: Position = {
  at: '1970-01-01T00:00:00.000000Z',
  id: '00000000-0000-0000-0000-000000000000',
};

/** The last one of a time. */
export const lastId = 'ffffffff-ffff-ffff-ffff-ffffffffffff';
