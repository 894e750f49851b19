// What the servers of the benchmarks add to an Express app. overhead.mjs counts the CPU samples in this file, so nothing
// else stands here.

import { AsyncLocalStorage } from 'node:async_hooks';
import onFinished from 'on-finished';

const storage = new AsyncLocalStorage();

/** What every response takes at the least: an object in res.locals that after() finds from anywhere in its handling. */
export function attach(_req, res, next) {
  res.locals.backgroundTasks = { res };
  storage.run(res.locals.backgroundTasks, next);
}

/** What a careful Express developer writes by hand. */
export function byHand(task) {
  return (res) => {
    onFinished(res, () => {
      task().catch(console.error);
    });
  };
}

export function adding(...tasks) {
  return (res) => {
    for (const task of tasks) res.locals.backgroundTasks.add(task);
  };
}
