// list(): what is known of a task that has not ended.

import type { Request } from 'express';
import { describeRequest } from '../task/report.js';
import type { TaskStatus } from '../task/types.js';
import type { AddedTask } from './added-task.js';
import type { Run } from './run.js';

export interface TaskSnapshot {
  id: string;
  name: string;
  status: Extract<TaskStatus, 'pending' | 'running'>;
  /** Which attempt runs, or is to follow a failed one. 0 while the task is pending. */
  attempt: number;
  /** The time since `add()`, in ms. */
  ageMs: number;
  /** Method and path, without the query string: `POST /orders`. Undefined where the response is gone. */
  request: string | undefined;
}

/** Of the tasks of one list, the running one first. */
export function* snapshotsOf(
  run: Run | undefined,
  tasks: Iterable<AddedTask>,
  req: Request | undefined,
  now: number,
): Generator<TaskSnapshot, void, void> {
  const snapshotOf = ({ id, name }: AddedTask, attempt: number, addedAt: number): TaskSnapshot => {
    const status = attempt === 0 ? 'pending' : 'running';
    return { id, name, status, attempt, ageMs: Math.round(now - addedAt), request: req && describeRequest(req) };
  };
  if (run !== undefined) yield snapshotOf(run.task, run.attempt.attempt, run.addedAt);
  for (const task of tasks) if (task.addedAt !== undefined) yield snapshotOf(task, 0, task.addedAt);
}
