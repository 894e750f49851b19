// An Express server for the benchmarks, in a process of its own. Its argument says what the handler does after the response.

import { AsyncLocalStorage } from 'node:async_hooks';
import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import onFinished from 'on-finished';
import { smallest } from './smallest.mjs';

/** What every response takes at the least: an object in res.locals that after() finds from anywhere in its handling. */
const storage = new AsyncLocalStorage();
const attach = (_req, res, next) => {
  res.locals.backgroundTasks = { res };
  storage.run(res.locals.backgroundTasks, next);
};

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

const adding =
  (...tasks) =>
  (_req, res) => {
    for (const task of tasks) res.locals.backgroundTasks.add(task);
    res.json({ message: 'Hello' });
  };

const plain = (_req, res) => {
  res.json({ message: 'Hello' });
};

const kinds = {
  plain: [plain],
  'an object attached, no task': [plain, attach],
  'middleware, no task': [plain, backgroundTasks()],
  'by hand, one async task': [byHand(asyncTask)],
  'smallest middleware, one async task': [adding(asyncTask), smallest],
  'one async task': [adding(asyncTask), backgroundTasks()],
  'one sync task': [adding(syncTask), backgroundTasks()],
  '20 tasks of 5 ms': [adding(...Array.from({ length: 20 }, () => busyFor5Ms)), backgroundTasks()],
};

const [handler, middleware] = kinds[process.argv[2]];
const app = express();
if (middleware !== undefined) app.use(middleware);
app.get('/', handler);
app.get('/ping', plain);

const server = app.listen(0, '127.0.0.1', () => {
  process.send({ port: server.address().port });
});

process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send({ cpu: user + system, runs });
});
