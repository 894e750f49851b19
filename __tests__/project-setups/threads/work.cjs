const { currentTask } = require('express-background-tasks');

module.exports = (argument) => {
  const { name, attempt, signal } = currentTask();
  return { argument, task: name, attempt, aborted: signal.aborted };
};
