// The tasks that an engine has stored, as a queue of bull-board.

import type { AppJobScheduler, JobCleanStatus, JobCounts, JobStatus } from '@bull-board/api/typings/app';
import { isEngine, type TaskEngine } from '../engine/engine.js';
import { BoardAdapter, noCounts } from './board-adapter.js';
import { TaskJob } from './job.js';
import { ListedJob } from './listed-job.js';
import { checkAdapter, engineAdapterChecks, type TaskEngineAdapterOptions } from './options.js';
import { pageOf, queuedIds } from './pages.js';
import { answerOf, isLacking, refuse } from './refusal.js';

/**
 * Shows the tasks of an engine on the page of bull-board, for the person on call: how many there are, their arguments, progress,
 * errors and results, the schedules. Failed ones can be retried, delayed ones promoted, and what does not run can be removed.
 * It needs no worker in its process. Mount the page behind your own authorization.
 *
 * The constructor throws BackgroundTasksError `ERR_INVALID_OPTION` if `engine` is not an engine, and for bad options.
 *
 * @example
 * const serverAdapter = new ExpressAdapter().setBasePath('/admin');
 * createBullBoard({ queues: [new TaskEngineAdapter(engine)], serverAdapter });
 * app.use('/admin', mayOperate, serverAdapter.getRouter());
 */
export class TaskEngineAdapter extends BoardAdapter {
  readonly #engine: TaskEngine;
  /** What the engine cannot do and the page would show. */
  #lack: string | undefined = undefined;

  constructor(engine: TaskEngine, options: TaskEngineAdapterOptions = {}) {
    checkAdapter('TaskEngineAdapter', engine, isEngine, options, engineAdapterChecks);
    super(options);
    this.#engine = engine;
  }

  /** The page has no other place for what an engine cannot tell. */
  override getDescription(): string {
    return [this.description, this.#lack].filter(Boolean).join(' ');
  }

  override getJobStatuses(): JobStatus[] {
    return ['active', 'waiting', 'completed', 'failed', 'delayed'];
  }

  override async getJobCounts(): Promise<JobCounts> {
    const stats = await this.#known(this.#engine.stats());
    if (stats === undefined) return noCounts;
    const { queued, due, running, succeeded, failed, cancelled } = stats;
    return {
      ...noCounts,
      active: running,
      waiting: due,
      completed: succeeded,
      failed: failed + cancelled,
      delayed: queued - due,
    };
  }

  override async getJobs(statuses: JobStatus[], start: number, end: number): Promise<ListedJob[]> {
    const records = (await this.#known(pageOf(this.#engine, statuses, start, end))) ?? [];
    let retried: Promise<number> | undefined;
    const retryFailed = (): Promise<number> => {
      retried ??= answerOf(this.#engine.retry({ state: 'failed' }));
      return retried;
    };
    return records.map((record) => new ListedJob(this.#engine, record, retryFailed));
  }

  override async getJob(id: string): Promise<TaskJob | undefined> {
    const record = await answerOf(this.#engine.get(id));
    return record && new TaskJob(this.#engine, record);
  }

  /** All of a tab, however young they are. */
  override async clean(status: JobCleanStatus): Promise<void> {
    switch (status) {
      case 'completed':
        await answerOf(this.#engine.remove({ state: 'succeeded' }));
        break;
      case 'failed':
        await answerOf(this.#engine.remove({ state: 'failed' }));
        await answerOf(this.#engine.remove({ state: 'cancelled' }));
        break;
      case 'delayed':
        await this.#each('delayed', (id) => this.#engine.remove(id));
        break;
      case 'wait':
        await this.#each('waiting', (id) => this.#engine.remove(id));
        break;
      // An address may have any other word.
      default:
        return refuse('Only tasks that do not run can be removed');
    }
  }

  override async empty(): Promise<void> {
    await answerOf(this.#engine.remove({ state: 'queued' }));
  }

  override promoteAll(): Promise<void> {
    return this.#each('delayed', (id) => this.#engine.promote(id));
  }

  override async getJobSchedulers(): Promise<Omit<AppJobScheduler, 'queueName'>[]> {
    const schedules = (await this.#known(this.#engine.schedules())) ?? [];
    return schedules.map(({ name, task, cron, timeZone, args, nextRunAt }) => ({
      id: name,
      name: task,
      pattern: cron,
      tz: timeZone,
      template: { data: args },
      ...(nextRunAt !== undefined && { next: nextRunAt.getTime() }),
    }));
  }

  override async getJobSchedulersCount(): Promise<number> {
    return (await this.getJobSchedulers()).length;
  }

  override removeJobScheduler(id: string): Promise<boolean> {
    return answerOf(this.#engine.unschedule(id));
  }

  async #each(status: 'waiting' | 'delayed', change: (id: string) => Promise<unknown>): Promise<void> {
    for (const id of await answerOf(queuedIds(this.#engine, status))) await answerOf(change(id));
  }

  /** Undefined where the engine cannot tell: the other queues of the board are shown all the same. */
  async #known<T>(call: Promise<T>): Promise<T | undefined> {
    try {
      return await answerOf(call);
    } catch (error) {
      if (!isLacking(error)) throw error;
      this.#lack ??= error.message;
      return undefined;
    }
  }
}
