// The tasks that a middleware has in this process, as a queue of bull-board that can be looked at.

import type { JobCounts, JobStatus, QueueJob } from '@bull-board/api/typings/app';
import { wallClockTime } from '../clock.js';
import { isObject } from '../foreign-value.js';
import type { BackgroundTasksMiddleware } from '../middleware.js';
import type { Check } from '../options.js';
import type { TaskSnapshot } from '../response/snapshot.js';
import { BoardAdapter, noCounts } from './board-adapter.js';
import { type BoardAdapterOptions, boardChecks, checkAdapter } from './options.js';
import { refuse } from './refusal.js';

type Tasks = Pick<BackgroundTasksMiddleware, 'list' | 'stats'>;

/**
 * Shows on the page of bull-board which tasks run after a response of this process and which wait, with what
 * `backgroundTasks().list()` tells of them. There is nothing to press: such tasks are not stored.
 *
 * The constructor throws BackgroundTasksError `ERR_INVALID_OPTION` if `tasks` is not what `backgroundTasks()` returned, and for bad
 * options.
 *
 * @example
 * createBullBoard({ queues: [new ResponseTasksAdapter(tasks)], serverAdapter });
 */
export class ResponseTasksAdapter extends BoardAdapter {
  readonly #tasks: Tasks;

  constructor(tasks: Tasks, options: BoardAdapterOptions = {}) {
    checkAdapter('ResponseTasksAdapter', tasks, isMiddleware, options, boardChecks);
    super({ ...options, name: options.name ?? 'responses', readOnlyMode: true });
    this.#tasks = tasks;
  }

  override getJobStatuses(): JobStatus[] {
    return ['active', 'waiting'];
  }

  override async getJobCounts(): Promise<JobCounts> {
    const { running, pending } = this.#tasks.stats;
    return { ...noCounts, active: running, waiting: pending };
  }

  override async getJobs(statuses: JobStatus[], start: number, end: number): Promise<QueueJob[]> {
    const shown = this.#tasks.list().filter((snapshot) => statuses.includes(tabOf(snapshot)));
    return shown.slice(start, end + 1).map(jobOf);
  }

  override async getJob(id: string): Promise<QueueJob | undefined> {
    const found = this.#tasks.list().find((snapshot) => snapshot.id === id);
    return found && jobOf(found);
  }
}

function tabOf({ status }: TaskSnapshot): JobStatus {
  return status === 'running' ? 'active' : 'waiting';
}

function jobOf(snapshot: TaskSnapshot): QueueJob {
  const { id, name, attempt, ageMs, request } = snapshot;
  const rest = { progress: 0, failedReason: '', stacktrace: null, returnvalue: undefined, opts: {} };
  const timestamp = wallClockTime() - ageMs;
  const job = {
    id, // The board reads it, although its type does not have it.
    opts: {},
    getState: async () => tabOf(snapshot),
    toJSON: () => ({ id, name, attemptsMade: attempt, timestamp, data: { request }, ...rest }),
    promote: notStored,
    remove: notStored,
    retry: notStored,
  };
  return job;
}

function notStored(): Promise<never> {
  return refuse('The task is not stored: it runs once, after its response');
}

const isMiddleware: Check = (value) =>
  isObject(value) && typeof Reflect.get(value, 'list') === 'function' && isObject(Reflect.get(value, 'stats'))
    ? undefined
    : 'the middleware that backgroundTasks() has returned';
