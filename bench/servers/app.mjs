// The Express apps of the benchmarks. A kind says what the handler does for a task before it answers, and behind which
// middleware.

import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import { adding, attach, byHand } from './additions.mjs';
import { smallest } from './smallest.mjs';

const asyncTask = async () => {};
const syncTask = () => {};
const busyFor5Ms = () => {
  const end = performance.now() + 5;
  while (performance.now() < end);
};
const nothing = () => {};

const kinds = {
  plain: () => [nothing],
  'an object attached, no task': () => [nothing, attach],
  'middleware, no task': () => [nothing, backgroundTasks()],
  'by hand, one async task': () => [byHand(asyncTask)],
  'smallest middleware, one async task': () => [adding(asyncTask), smallest],
  'one async task': () => [adding(asyncTask), backgroundTasks()],
  'one sync task': () => [adding(syncTask), backgroundTasks()],
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
