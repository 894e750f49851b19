// Writes down how attempts ended, and tries again where PostgreSQL is away.

import { nextTurn, sleep } from '../../clock.js';
import { serializeError } from '../../engine/serialize.js';
import type { ReportedTask } from '../../engine/worker-reports.js';
import { type Db, type Output, queue } from './boss.js';
import type { Ending } from './ending.js';
import type { Inserts } from './inserts.js';
import { type Counters, cancelledTier, type TakenJob } from './job.js';
import type { JobTable, Names } from './table.js';

/** For about so many seconds an ending is tried. Should PostgreSQL be away for longer, the task will run again. */
const mostTries = 60;

/** As it is written. */
interface EndedJob {
  readonly ended_id: string;
  readonly ended_count: number;
  readonly next_state: 'completed' | 'failed' | 'cancelled' | 'retry';
  readonly next_output?: Output;
  readonly counters?: Counters | undefined;
  readonly delay?: number;
  /** Not written: whether another one may wait behind it. */
  readonly is_keyed: boolean;
}

interface WrittenJob {
  readonly id: string;
  readonly has_failed: boolean;
  /** Of what is over and had a key. */
  readonly freed_key: string | null;
}

export class Endings {
  readonly #table: JobTable;
  readonly #inserts: Inserts;
  readonly #report: (info: ReportedTask, error: unknown) => void;
  readonly #onReleased: () => void;
  /** Those that end in this turn of the event loop, which one statement writes. */
  #ended: EndedJob[] = [];
  #written: Promise<ReadonlySet<string>> | undefined = undefined;
  #isGivenUp = false;

  /** `report` is called for what has failed, `onReleased` where a task that was behind another one is queued. */
  constructor(
    table: JobTable,
    inserts: Inserts,
    report: (info: ReportedTask, error: unknown) => void,
    onReleased: () => void,
  ) {
    this.#table = table;
    this.#inserts = inserts;
    this.#report = report;
    this.#onReleased = onReleased;
  }

  /** Never rejects. Where the job is not the worker's any more, nothing is written. */
  async write(job: TakenJob, ending: Ending): Promise<void> {
    const ended = endedJob(job, ending);
    // Tried again it is written alone: what is wrong may be one of the others.
    let write = (): Promise<ReadonlySet<string>> => this.#together(ended);
    for (let tries = 0; tries < mostTries && !this.#isGivenUp; tries++) {
      try {
        const written = await write();
        if (ending.kind === 'failed' && written.has(job.id)) this.#report(ending.info, ending.error);
        return;
      } catch {
        if (tries > 0) await sleep(1000);
        write = () => this.#write([ended]);
      }
    }
  }

  /** Stores that an attempt begins alone for the so-many-th time. False where the job is not the worker's any more. */
  async noteAlone({ id, retryCount }: TakenJob, alone: number): Promise<boolean> {
    const noted = await this.#table.query(
      ({ jobs }) => `UPDATE ${jobs} SET data = data || $4::text::jsonb
        WHERE name = $1 AND id = $2 AND retry_count = $3 AND state = 'active' RETURNING id`,
      [queue, id, retryCount, JSON.stringify({ alone })],
    );
    return noted.length > 0;
  }

  /** What is not written yet is left to the worker that takes the task again. */
  giveUp(): void {
    this.#isGivenUp = true;
  }

  #together(ended: EndedJob): Promise<ReadonlySet<string>> {
    this.#ended.push(ended);
    this.#written ??= nextTurn().then(() => {
      const all = this.#ended;
      this.#ended = [];
      this.#written = undefined;
      return this.#write(all);
    });
    return this.#written;
  }

  /** Resolves with the ids of those that have failed, and were still the worker's. */
  async #write(ended: readonly EndedJob[]): Promise<ReadonlySet<string>> {
    let released = 0;
    const end = async (db?: Db): Promise<WrittenJob[]> => {
      const written = await this.#table.query<WrittenJob>(endStatement, [queue, JSON.stringify(ended)], db);
      const freed = written.flatMap(({ freed_key }) => freed_key ?? []);
      released = freed.length === 0 ? 0 : await this.#release(freed, db);
      return written;
    };
    // No other one must take a key in between.
    const written = ended.some(({ is_keyed }) => is_keyed) ? await this.#table.transaction(end) : await end();
    if (released > 0) this.#onReleased();
    return new Set(written.filter(({ has_failed }) => has_failed).map(({ id }) => id));
  }

  /** By a statement of its own, which sees what was stored while the first one waited for the row of the task that ran. */
  async #release(keys: readonly string[], db?: Db): Promise<number> {
    try {
      return await this.#inserts.release(keys, db);
    } catch (error) {
      if (db?.transaction !== undefined) throw error;
      return 0; // A worker looks for what was left behind.
    }
  }
}

/** pg-boss's retry() adds one to the limit of retries, which would then be too large for its column. */
function endStatement({ jobs, state, now }: Names): string {
  return `UPDATE ${jobs} jobs SET
      state = ${nextState}::${state}, heartbeat_on = NULL, group_tier = NULL,
      completed_on = CASE WHEN ${nextState} <> 'retry' THEN ${now} END,
      start_after = CASE next_state WHEN 'retry' THEN ${now} + delay * interval '1 millisecond' ELSE start_after END,
      retry_limit = CASE next_state WHEN 'failed' THEN retry_limit - 1 ELSE retry_limit END,
      data = CASE WHEN counters IS NULL THEN data ELSE data || counters END,
      output = CASE WHEN next_output IS NULL THEN output
        WHEN output->'progress' IS NULL THEN next_output
        ELSE next_output || jsonb_build_object('progress', output->'progress') END
    FROM json_to_recordset($2::text::json) AS ended (ended_id uuid, ended_count int, next_state text, next_output jsonb,
      counters jsonb, delay float8)
    WHERE name = $1 AND id = ended_id AND retry_count = ended_count AND state = 'active'
    RETURNING id, state = 'failed' AS has_failed,
      CASE WHEN state > 'active' AND singleton_key <> id::text THEN singleton_key END AS freed_key`;
}

/** What is marked is cancelled, and neither put back nor failed. */
const nextState = `CASE WHEN next_state IN ('retry', 'failed') AND group_tier = '${cancelledTier}' THEN 'cancelled' ELSE next_state END`;

function endedJob({ id, retryCount, data }: TakenJob, ending: Ending): EndedJob {
  const job = { ended_id: id, ended_count: retryCount, is_keyed: data?.key !== undefined };
  switch (ending.kind) {
    case 'completed':
      return { ...job, next_state: 'completed', next_output: { result: ending.result } };
    case 'failed': {
      const next_output = { error: JSON.stringify(serializeError(ending.error)), attempts: ending.info.attempt };
      return { ...job, next_state: 'failed', next_output, counters: ending.counters };
    }
    case 'cancelled':
      return { ...job, next_state: 'cancelled' };
    case 'put back': {
      const { counters, delay } = ending;
      if (!('error' in ending)) return { ...job, next_state: 'retry', counters, delay };
      const next_output = { error: JSON.stringify(serializeError(ending.error)) };
      return { ...job, next_state: 'retry', next_output, counters, delay };
    }
  }
}
