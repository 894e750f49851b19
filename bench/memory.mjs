// Measures: heap per pending task, its arguments aside: 100,000 tasks added to one response that is not over.
// Against: an array of as many argument arrays, which is what a caller has to keep in any case.
// Fair: the same arguments in both; garbage is collected before each reading.

import { once } from 'node:events';
import { createServer } from 'node:http';
import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import { rowOf } from './statistics.mjs';

const count = 100_000;

export default async function memory() {
  const middleware = backgroundTasks();
  const app = express();
  app.use(middleware);
  let bytes;
  app.get('/', (_req, res) => {
    const ours = heapOf(() => {
      for (let number = 0; number < count; number++) res.locals.backgroundTasks.add(task, number);
      return res;
    });
    const arrays = heapOf(() => Array.from({ length: count }, (_, number) => [number]));
    bytes = (ours - arrays) / count;
    res.end();
  });
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  await (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
  await middleware.idle();
  server.close();
  return [
    rowOf({
      what: 'heap per pending task, arguments aside',
      against: 'an array of argument arrays',
      unit: 'bytes',
      goal: '≤ 160',
      values: [bytes],
    }),
  ];
}

function task() {}

function heapOf(make) {
  globalThis.gc();
  const before = process.memoryUsage().heapUsed;
  const kept = make();
  globalThis.gc();
  const after = process.memoryUsage().heapUsed;
  return kept === undefined ? 0 : after - before;
}
