// A runtime whose AsyncLocalStorage has no enterWith(), as that of Cloudflare Workers.

import { AsyncLocalStorage } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { serve } from './fixtures/serve';

// A copy of the library that has never seen enterWith(). Not while the file is loaded: where none of its tests are to run,
// nothing would restore it.
let library: typeof import('../lib/index.js');
const { enterWith } = AsyncLocalStorage.prototype;

beforeAll(() => {
  AsyncLocalStorage.prototype.enterWith = function (this: AsyncLocalStorage<unknown>, value: unknown): void {
    const caller = new Error().stack?.split('\n')[2] ?? '';
    // Node's own run() is made of it from version 24 on.
    if (!caller.includes('AsyncLocalStorage.run')) throw new Error('enterWith() is not there');
    enterWith.call(this, value);
  };
  library = require('../lib/index.js');
});

afterAll(() => {
  AsyncLocalStorage.prototype.enterWith = enterWith;
});

const error = new Error('boom');
const store = new AsyncLocalStorage<string>();

it.each([false, true])('keeps the context of tasks, attempts and reports (traced: %s)', async (isTraced) => {
  const { after, backgroundTasks, currentTask, task } = library;
  const seen: unknown[] = [];
  const onError = jest.fn(() => void seen.push(['onError', store.getStore(), currentTask()?.name]));
  const middleware = backgroundTasks({ onError, retries: { limit: 1, minDelay: 1 } });
  const app = express();
  app.get('/', middleware, (_req, res) => {
    for (const name of ['a', 'b']) {
      const named = task(name, async (argument: string) => {
        seen.push([argument, store.getStore(), currentTask()?.name]);
        await sleep(1);
        seen.push([argument, store.getStore(), currentTask()?.attempt]);
        if (name === 'b') throw error;
        after(async () => void seen.push(['added', store.getStore(), currentTask()?.attempt]));
      });
      store.run(`store of ${name}`, () => res.locals.backgroundTasks.add(named, `argument of ${name}`));
    }
    res.end();
  });
  const { url } = await serve(app);
  const starts = jest.fn();
  if (isTraced) subscribe('tracing:express-background-tasks:task:start', starts);
  await (await fetch(url)).text();
  await middleware.idle();
  unsubscribe('tracing:express-background-tasks:task:start', starts);
  expect(starts).toHaveBeenCalledTimes(isTraced ? 4 : 0);
  expect(onError).toHaveBeenCalledWith(error, expect.objectContaining({ task: expect.anything() }));
  expect(seen).toEqual([
    ['argument of a', 'store of a', 'a'],
    ['argument of a', 'store of a', 1],
    ['argument of b', 'store of b', 'b'],
    ['argument of b', 'store of b', 1],
    ['argument of b', 'store of b', 'b'],
    ['argument of b', 'store of b', 2],
    ['onError', 'store of b', undefined],
    ['added', 'store of a', 1],
  ]);
});
