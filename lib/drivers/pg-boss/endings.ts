// Writes down how attempts ended, and tries again where PostgreSQL is away.

import { nextTurn, sleep } from '../../clock.js';
import { serializeError } from '../../engine/serialize.js';
import type { TaskInfo } from '../../task/types.js';
import { type Boss, queue } from './boss.js';
import type { Counters, TakenJob } from './job.js';
import type { JobTable } from './table.js';

export type Ending =
  | { readonly kind: 'completed'; readonly result: string | undefined }
  | { readonly kind: 'failed'; readonly info: TaskInfo; readonly error: unknown }
  /** To be taken again in so many ms, with these counters in place of what they were. */
  | { readonly kind: 'put back'; readonly counters: Counters; readonly delay: number };

/** For about so many seconds an ending is tried. Should PostgreSQL be away for longer, the task will run again. */
const mostTries = 60;

export class Endings {
  readonly #boss: Boss;
  readonly #table: JobTable;
  readonly #report: (info: TaskInfo, error: unknown) => void;
  /** By result. */
  readonly #completing = new Map<string | undefined, { jobs: TakenJob[]; written: Promise<unknown> }>();
  #isGivenUp = false;

  /** `report` is called for what has failed. */
  constructor(boss: Boss, table: JobTable, report: (info: TaskInfo, error: unknown) => void) {
    this.#boss = boss;
    this.#table = table;
    this.#report = report;
  }

  /** Never rejects. Where the job is not the worker's any more, nothing is written. */
  async write(job: TakenJob, ending: Ending): Promise<void> {
    for (let tries = 0; tries < mostTries && !this.#isGivenUp; tries++) {
      try {
        await this.#write(job, ending);
        return;
      } catch {
        await sleep(1000);
      }
    }
  }

  /** What is not written yet is left to the worker that takes the task again. */
  giveUp(): void {
    this.#isGivenUp = true;
  }

  async #write(job: TakenJob, ending: Ending): Promise<void> {
    switch (ending.kind) {
      case 'completed':
        await this.#complete(job, ending.result);
        break;
      case 'put back':
        await this.#table.putBack(job, ending.counters, ending.delay);
        break;
      case 'failed': {
        const { info, error } = ending;
        const output = { error: JSON.stringify(serializeError(error)), attempts: info.attempt };
        if (await this.#table.fail(job, output)) this.#report(info, error);
      }
    }
  }

  /** Those that end in one turn of the event loop with the same result, which is mostly none, by one statement. */
  #complete(job: TakenJob, result: string | undefined): Promise<unknown> {
    const completing = this.#completing.get(result);
    if (completing !== undefined) {
      completing.jobs.push(job);
      return completing.written;
    }
    const jobs = [job];
    const written = nextTurn().then(() => {
      this.#completing.delete(result);
      return this.#boss.complete(queue, jobs, { result });
    });
    this.#completing.set(result, { jobs, written });
    return written;
  }
}
