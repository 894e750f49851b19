// One job of a page. The board retries those only where all of a tab are to be retried.

import type { JobRetryStatus } from '@bull-board/api/typings/app';
import type { TaskEngine, TaskRecord } from '../engine/engine.js';
import { TaskJob } from './job.js';

export class ListedJob extends TaskJob {
  readonly #retryFailed: () => Promise<unknown>;

  constructor(engine: TaskEngine, record: TaskRecord, retryFailed: () => Promise<unknown>) {
    super(engine, record);
    this.#retryFailed = retryFailed;
  }

  /**
   * Retries all of the tab. The board itself goes from one page to the next only while the first page changes: a hundred tasks
   * that cannot be retried, since their keys are live, would keep it from the others.
   */
  override async retry(status: JobRetryStatus): Promise<void> {
    if (status === 'completed') return super.retry(status);
    await this.#retryFailed();
  }
}
