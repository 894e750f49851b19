// One job of a page. The board retries those only where all of a tab are to be retried.

import type { JobRetryStatus } from '@bull-board/api/typings/app';
import { TaskJob } from './job.js';

export class ListedJob extends TaskJob {
  /**
   * What somebody has cancelled stays as it is, and so does a task whose key is live: neither may keep the board from the
   * others.
   */
  override async retry(status: JobRetryStatus): Promise<void> {
    if (status === 'completed') return super.retry(status);
    if (!this.isCancelled) await this.requeue();
  }
}
