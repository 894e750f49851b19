// What both adapters have in common: all that a queue of bull-board has and tasks have not. The board offers some of it all the
// same, and is refused in a sentence.

import { BaseAdapter } from '@bull-board/api/dist/queueAdapters/base.js';
import type {
  AppJobScheduler,
  JobCleanStatus,
  JobCounts,
  JobSchedulerUpdateResult,
  JobStatus,
  QueueJob,
  QueueMetrics,
} from '@bull-board/api/typings/app';
import type { TaskEngineAdapterOptions } from './options.js';
import { refuse } from './refusal.js';

/** No tab of the board holds a task. */
export const noCounts: JobCounts = {
  latest: 0,
  active: 0,
  waiting: 0,
  'waiting-children': 0,
  prioritized: 0,
  completed: 0,
  failed: 0,
  delayed: 0,
  paused: 0,
};

export abstract class BoardAdapter extends BaseAdapter {
  readonly #name: string;

  constructor({ name = 'tasks', displayName = name, ...options }: TaskEngineAdapterOptions) {
    const { description = '', delimiter = '', readOnlyMode = false, allowRetries = true } = options;
    // As `bullmq` the board would ask for BullMQ's own objects. A task that has succeeded is not run again.
    super('bull', { displayName, description, delimiter, readOnlyMode, allowRetries, allowCompletedRetries: false });
    this.#name = name;
  }

  override getName(): string {
    return this.#name;
  }

  override getStatuses(): ('latest' | JobStatus)[] {
    return ['latest', ...this.getJobStatuses()];
  }

  override async getJobLogs(): Promise<string[]> {
    return [];
  }

  override getMetrics(): Promise<QueueMetrics> {
    return refuse('The board has no metrics of tasks');
  }

  override async getRedisInfo(): Promise<null> {
    return null;
  }

  override async getGlobalConcurrency(): Promise<null> {
    return null;
  }

  override setGlobalConcurrency(): Promise<void> {
    return refuse('How many tasks run at the same time is an option of each worker: work(tasks, { concurrency })');
  }

  override async isPaused(): Promise<boolean> {
    return false;
  }

  override pause(): Promise<void> {
    return refuse('Tasks cannot be paused from here: close the workers, and what is queued waits for them');
  }

  override resume(): Promise<void> {
    return refuse('Tasks are never paused');
  }

  override empty(): Promise<void> {
    return refuse('Tasks that wait cannot be removed here');
  }

  override obliterate(): Promise<void> {
    return refuse('Tasks cannot be removed all at once: remove those of each state');
  }

  override clean(_status: JobCleanStatus): Promise<void> {
    return refuse('Tasks cannot be removed here');
  }

  override addJob(): Promise<QueueJob> {
    return refuse('The board cannot enqueue a task: the application does it, which knows the options of the task');
  }

  override promoteAll(): Promise<void> {
    return refuse('No task waits for its time here');
  }

  override async getJobSchedulers(): Promise<Omit<AppJobScheduler, 'queueName'>[]> {
    return [];
  }

  override async getJobSchedulersCount(): Promise<number> {
    return 0;
  }

  override async removeJobScheduler(_id: string): Promise<boolean> {
    return false;
  }

  override updateJobScheduler(): Promise<JobSchedulerUpdateResult> {
    return refuse('The application changes a schedule: schedule() with its name replaces it');
  }

  override runJobSchedulerNow(): Promise<QueueJob> {
    return refuse('The application runs the task of a schedule before its time: enqueue() it');
  }
}
