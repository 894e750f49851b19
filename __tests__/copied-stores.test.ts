// The way into a response's scope that is taken where AsyncLocalStorage copies its stores, from Node 24 on. It works on all.

import { AsyncLocalStorage } from 'node:async_hooks';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { serve } from './fixtures/serve';

const { versions } = process;
Object.defineProperty(process, 'versions', { value: { ...versions, node: '24.0.0' } });
// Required, since imports are hoisted.
const { after, backgroundTasks } = require('../lib/index') as typeof import('../lib/index');

const store = new AsyncLocalStorage<string>();

function findsResponse(): boolean {
  try {
    after(() => {});
    return true;
  } catch {
    return false;
  }
}

it('holds within the handling of the request, however late, and nowhere else', async () => {
  const seen: unknown[] = [];
  const middleware = backgroundTasks();
  const app = express();
  app.use((req, res, next) => {
    store.run(req.url, () => {
      middleware(req, res, next);
      seen.push(['behind the middleware', store.getStore(), findsResponse()]);
    });
  });
  app.get('/ok', async (_req, res) => {
    seen.push(['handler', store.getStore(), findsResponse()]);
    await sleep(1);
    seen.push(['later', store.getStore(), findsResponse()]);
    after(async () => {
      seen.push(['task', store.getStore(), findsResponse()]);
    });
    res.end();
  });
  const { url } = await serve(app);
  await (await fetch(`${url}/ok`)).text();
  await middleware.idle();
  expect(seen).toEqual([
    ['handler', '/ok', true],
    ['behind the middleware', '/ok', false],
    ['later', '/ok', true],
    ['task', '/ok', true],
  ]);
});

it('is left when the next handler throws', () => {
  const middleware = backgroundTasks();
  const error = new Error('boom');
  const fail = (): void => {
    throw error;
  };
  const call = (): unknown => Reflect.apply(middleware, undefined, [{}, { locals: {} }, fail]);
  expect(call).toThrow(error);
  expect(findsResponse()).toBe(false);
});
