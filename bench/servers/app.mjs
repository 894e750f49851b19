// The Express apps of the benchmarks. A kind says what the handler does for a task before it answers, and behind which
// middleware.

import { availableParallelism } from 'node:os';
import { setImmediate } from 'node:timers/promises';
import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import { threads } from 'express-background-tasks/threads';
import { adding, attach, byHand } from './additions.mjs';
import { busyFor } from './compute.mjs';
import { smallest } from './smallest.mjs';

const asyncTask = async () => {};
const syncTask = () => {};
const busyFor5Ms = () => busyFor(5);
const nothing = () => {};

/** From the first request on it works without an end, so many tasks at the same time. */
function working(task, count) {
  const workOn = async () => {
    for (;;) {
      await task(25);
      await setImmediate();
    }
  };
  return () => {
    for (let number = 0; number < count; number++) void workOn();
  };
}

function inThreads() {
  const count = availableParallelism();
  const pool = threads({ minThreads: count, maxThreads: count });
  return pool.task('work', new URL('compute.mjs', import.meta.url), { export: 'busyFor' });
}

const kinds = {
  plain: () => [nothing],
  'an object attached, no task': () => [nothing, attach],
  'middleware, no task': () => [nothing, backgroundTasks()],
  'by hand, one async task': () => [byHand(asyncTask)],
  'smallest middleware, one async task': () => [adding(asyncTask), smallest],
  'one async task': () => [adding(asyncTask), backgroundTasks()],
  'one sync task': () => [adding(syncTask), backgroundTasks()],
  '25 ms of work in a thread': () => [working(inThreads(), availableParallelism()), backgroundTasks()],
  '25 ms of work on the loop': () => [working(busyFor, 1), backgroundTasks()],
  '20 tasks of 5 ms': () => [adding(...Array.from({ length: 20 }, () => busyFor5Ms)), backgroundTasks()],
};

export function appOf(kind) {
  const [addTasks, middleware] = kinds[kind]();
  const answer = (_req, res) => {
    res.json({ message: 'Hello' });
  };
  const app = express();
  if (middleware !== undefined) app.use(middleware);
  app.get('/', (req, res) => {
    addTasks(res);
    answer(req, res);
  });
  app.get('/ping', answer);
  return app;
}
