import { currentTask } from 'express-background-tasks';

export default (argument) => {
  const { name, attempt, signal } = currentTask();
  return { argument, task: name, attempt, aborted: signal.aborted };
};
