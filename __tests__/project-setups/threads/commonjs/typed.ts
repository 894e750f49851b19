const { currentTask }: typeof import('express-background-tasks') = require('express-background-tasks');

module.exports = function describe(argument: string): object {
  const task = currentTask();
  return { argument, task: task?.name, attempt: task?.attempt, aborted: task?.signal.aborted };
};
