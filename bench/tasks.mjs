// Measures: time per task, from the first add to the end of the last, of 100,000 asynchronous tasks on one response, and the
// same at 10,000 and 1,000,000.
// Against: fastq and p-queue at concurrency 1; a bare loop of awaits with a try around each, which has no queue at all; and
// the floor, the same loop with what none of the others does: it keeps the AsyncLocalStorage stores of each add, has a handle
// with a status for it, gives each attempt a store of its own (currentTask()), and looks at the clock after each (the time
// slice).
// Fair: the same function with one argument everywhere. fastq runs once by its promise API, the one for async functions, and
// once by callbacks, which is its fastest; p-queue is given what its README shows. Rounds are interleaved in one process,
// with a collection of the young generation before each, as in a server at work. After a full collection, which has a row of
// its own, the young generation is small and has to grow again. Ours goes through the middleware's list of a real response
// to a real request.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { once } from 'node:events';
import { createServer } from 'node:http';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { backgroundTasks } from 'express-background-tasks';
import fastq from 'fastq';
import PQueue from 'p-queue';
import { order, rowOf } from './statistics.mjs';

const rounds = 15;

export default async function tasks() {
  const ours = await startOurs();
  try {
    const contenders = {
      ours: ours.run,
      fastq: runFastq,
      'fastq, by callbacks': runFastqCallbacks,
      'p-queue': runPQueue,
      'the floor': runFloor,
      'a bare loop of awaits': runLoop,
    };
    const times = Object.fromEntries(Object.keys(contenders).map((name) => [name, []]));
    for (let round = 0; round < rounds; round++) {
      const names = Object.keys(contenders);
      for (const name of round % 2 === 0 ? names : names.reverse())
        times[name].push(await measure(contenders[name], 100_000));
    }
    const afterFull = [];
    for (let round = 0; round < rounds; round++) {
      const pair = [];
      for (const index of order(2, round)) {
        pair[index] = await measure([ours.run, runFastq][index], 100_000, 'major');
      }
      afterFull.push(pair[1] / pair[0]);
    }
    const perTask = [];
    for (const count of [10_000, 1_000_000]) {
      const ratios = [];
      for (let round = 0; round < 5; round++) {
        const [few, many] = [await measure(ours.run, 100_000), await measure(ours.run, count)];
        ratios.push(many / few);
      }
      perTask.push(row(`time per task, ${count} on one response`, 'itself at 100000', '≤ 1.15', ratios));
    }
    const floor = [];
    for (let round = 0; round < 5; round++) {
      const [few, many] = [await measure(runFloor, 100_000), await measure(runFloor, 1_000_000)];
      floor.push(many / few);
    }
    perTask.push(row('the floor, 1000000 in one loop', 'itself at 100000', '', floor));
    const ratiosTo = (name, of = 'ours') => times[name].map((time, round) => time / times[of][round]);
    return [
      rowOf({ what: 'time per task, 100000 on one response', unit: 'µs', goal: '≤ 1.0', values: times.ours }),
      row('the same, how many times as fast', 'fastq', '≥ 1.5', ratiosTo('fastq')),
      row('the same after a full collection', 'fastq', '', afterFull),
      row('the same, how many times as fast', 'p-queue', '≥ 20', ratiosTo('p-queue')),
      row('the same, how many times as fast', 'fastq, by callbacks', '', ratiosTo('fastq, by callbacks')),
      row('the same, how many times as fast', 'the floor', '', ratiosTo('the floor')),
      row('the same, how many times as fast', 'a bare loop of awaits', '', ratiosTo('a bare loop of awaits')),
      row('the floor, how many times as fast', 'p-queue', '', ratiosTo('p-queue', 'the floor')),
      row('a bare loop of awaits, how many times as fast', 'p-queue', '', ratiosTo('p-queue', 'a bare loop of awaits')),
      ...perTask,
    ];
  } finally {
    ours.stop();
  }
}

let sum = 0;
async function task(number) {
  sum += number;
}

function row(what, against, goal, values) {
  return rowOf({ what, against, goal, values });
}

/** Time per task, in µs. */
async function measure(run, count, collection = 'minor') {
  globalThis.gc({ type: collection });
  sum = 0;
  const time = await run(count);
  if (sum !== (count * (count - 1)) / 2) throw new Error('not every task ran once');
  return (time * 1000) / count;
}

async function startOurs() {
  const middleware = backgroundTasks();
  const app = express();
  app.use(middleware);
  let addTasks;
  app.get('/', (_req, res) => {
    const { backgroundTasks } = res.locals;
    // In the context of the handler, as it is used.
    addTasks = AsyncResource.bind((count) => {
      for (let number = 0; number < count; number++) backgroundTasks.add(task, number);
    });
    res.end();
  });
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  return {
    stop: () => server.close(),
    /** The client, which shares the process, has its answer before the clock starts. */
    async run(count) {
      await (await fetch(`http://127.0.0.1:${server.address().port}`)).text();
      await sleep(5);
      const start = performance.now();
      addTasks(count);
      await middleware.idle();
      return performance.now() - start;
    },
  };
}

async function runFastq(count) {
  const start = performance.now();
  const queue = fastq.promise(task, 1);
  for (let number = 0; number < count; number++) queue.push(number);
  await queue.drained();
  return performance.now() - start;
}

async function runFastqCallbacks(count) {
  const start = performance.now();
  await new Promise((resolve) => {
    const queue = fastq((number, done) => task(number).then(() => done(null), done), 1);
    queue.drain = resolve;
    const logError = (error) => error && console.error(error);
    for (let number = 0; number < count; number++) queue.push(number, logError);
  });
  return performance.now() - start;
}

const scope = new AsyncLocalStorage();

class FloorTask extends AsyncResource {
  status = 'pending';

  constructor(fn, args) {
    super('Task');
    this.fn = fn;
    this.args = args;
  }

  call(attempt) {
    return this.runInAsyncScope(enterAndCall, this, attempt);
  }
}

function enterAndCall(attempt) {
  scope.enterWith(attempt);
  return this.fn(...this.args);
}

/** In a context that holds a store, as a handler's does. */
function runFloor(count) {
  return scope.run({}, async () => {
    const start = performance.now();
    const tasks = [];
    for (let number = 0; number < count; number++) tasks.push(new FloorTask(task, [number]));
    let sliceEnd = performance.now() + 5;
    for (const task of tasks) {
      task.status = 'running';
      try {
        await task.call({ task, attempt: 1 });
        task.status = 'succeeded';
      } catch (error) {
        task.status = 'failed';
        console.error(error);
      }
      if (performance.now() < sliceEnd) continue;
      await new Promise(setImmediate);
      sliceEnd = performance.now() + 5;
    }
    return performance.now() - start;
  });
}

async function runPQueue(count) {
  const start = performance.now();
  const queue = new PQueue({ concurrency: 1 });
  for (let number = 0; number < count; number++) void queue.add(() => task(number));
  await queue.onIdle();
  return performance.now() - start;
}

async function runLoop(count) {
  const start = performance.now();
  const calls = [];
  for (let number = 0; number < count; number++) calls.push([task, [number]]);
  for (const [fn, args] of calls) {
    try {
      await fn(...args);
    } catch (error) {
      console.error(error);
    }
  }
  return performance.now() - start;
}
