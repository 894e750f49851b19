// An open pool keeps nothing of the tasks that it has run.

import { AsyncLocalStorage } from 'node:async_hooks';
import { runInThisContext } from 'node:vm';
import express from 'express';
import { backgroundTasks } from '../../lib/index';
import { countKept } from '../fixtures/garbage';
import { serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';
import { openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

/** Jest gives tests a copy of `process` that hears of no events. */
const realProcess: NodeJS.Process = runInThisContext('process');

const store = new AsyncLocalStorage<object>();

it('keeps neither arguments, results and errors, nor the stores of the request whose task has started its threads', async () => {
  const pool = openThreads();
  const echo = workTask(pool, 'echo');
  const refuse = workTask(pool, 'refuse');
  const refs: WeakRef<object>[] = [];
  const keep = <T extends object>(value: T): T => {
    refs.push(new WeakRef(value));
    return value;
  };
  async function call(): Promise<void> {
    await store.run(keep({ request: 1 }), async () => {
      keep((await echo(keep({ argument: 1 }))) as object);
      await refuse().catch(keep);
    });
  }
  await call();
  await call();
  expect(refs).toHaveLength(8);
  expect(await countKept(refs)).toBe(0);
});

describe.each(['default', 'refuse', 'never', 'exit', 'computeFor'] as const)('a task in a thread: %s', (name) => {
  it('keeps no response alive once it has run', async () => {
    const pool = openThreads();
    const refs: WeakRef<object>[] = [];
    const middleware = backgroundTasks({ onError: () => {} });
    const app = express();
    app.use(middleware);
    app.get('/', (req, res) => {
      refs.push(new WeakRef(req), new WeakRef(res));
      const task = workTask(pool, name, { timeout: 50 });
      res.locals.backgroundTasks.add(task as () => Promise<unknown>);
      res.end();
    });
    const { url, server } = await serve(app);
    for (let number = 0; number < 3; number++) await (await fetch(url)).text();
    await middleware.idle();
    server.closeAllConnections(); // Each keeps its last request, while it is open.
    expect(await countKept(refs)).toBe(0);
  });
});

it('calls many at the same time from one task without a warning', async () => {
  const pool = openThreads();
  const sum = workTask(pool, 'default');
  const warnings: string[] = [];
  const warn = ({ name }: Error): void => void warnings.push(name);
  realProcess.on('warning', warn);
  const { respond } = await serveTasks();
  const handle = await respond((tasks) =>
    tasks.add(async () => (await Promise.all(Array.from({ length: 50 }, (_, number) => sum(number)))).length),
  );
  expect(await handle.finished).toEqual({ status: 'succeeded', value: 50 });
  realProcess.off('warning', warn);
  expect(warnings).toEqual([]);
});
