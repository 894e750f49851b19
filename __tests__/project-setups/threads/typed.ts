import { currentTask } from 'express-background-tasks';

export interface Described {
  argument: string;
  task: string | undefined;
  attempt: number | undefined;
  aborted: boolean | undefined;
}

export default function describe(argument: string): Described {
  const task = currentTask();
  return { argument, task: task?.name, attempt: task?.attempt, aborted: task?.signal.aborted };
}
