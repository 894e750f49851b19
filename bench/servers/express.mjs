// An Express server for the benchmarks, in a process of its own. Its argument says what the handler does after the response.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import onFinished from 'on-finished';

/** What after() takes at the least: the response, found from anywhere in its handling. */
const storage = new AsyncLocalStorage();

let runs = 0;
const asyncTask = async () => {
  runs++;
};
const syncTask = () => {
  runs++;
};
const busyFor5Ms = () => {
  const end = performance.now() + 5;
  while (performance.now() < end);
};

/** What a careful Express developer writes by hand. */
const byHand = (task) => (_req, res) => {
  onFinished(res, () => {
    task().catch(console.error);
  });
  res.json({ message: 'Hello' });
};

/** The least that keeps the stores of the caller, gives the task one of its own, and waits for its turn of the event loop. */
const inContext = (task) => (_req, res) => {
  const resource = new AsyncResource('task');
  const run = () => {
    resource.runInAsyncScope(() => storage.run(task, task).catch(console.error));
  };
  onFinished(res, () => setImmediate(run));
  res.json({ message: 'Hello' });
};

const adding =
  (...tasks) =>
  (_req, res) => {
    for (const task of tasks) res.locals.backgroundTasks.add(task);
    res.json({ message: 'Hello' });
  };

const plain = (_req, res) => {
  res.json({ message: 'Hello' });
};

const storing = (_req, res, next) => storage.run(res, next);

const kinds = {
  plain: [false, plain],
  'AsyncLocalStorage alone': [false, plain, storing],
  'middleware, no task': [true, plain],
  'by hand, one async task': [false, byHand(asyncTask)],
  'by hand, one async task in its context': [false, inContext(asyncTask), storing],
  'one async task': [true, adding(asyncTask)],
  'one sync task': [true, adding(syncTask)],
  '20 tasks of 5 ms': [true, adding(...Array.from({ length: 20 }, () => busyFor5Ms))],
};

const [hasMiddleware, handler, other] = kinds[process.argv[2]];
const app = express();
if (other !== undefined) app.use(other);
if (hasMiddleware) app.use(backgroundTasks());
app.get('/', handler);
app.get('/ping', plain);

const server = app.listen(0, '127.0.0.1', () => {
  process.send({ port: server.address().port });
});

process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send({ cpu: user + system, runs });
});
