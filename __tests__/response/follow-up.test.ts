// Promise 7: idle() and close() wait for what follows in the same turn from a task's end.

import { setTimeout as sleep } from 'node:timers/promises';
import type { BackgroundTasks, BackgroundTasksMiddleware } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');

const waits: [string, (middleware: BackgroundTasksMiddleware) => Promise<unknown>][] = [
  ['idle()', (middleware) => middleware.idle()],
  ['close()', (middleware) => middleware.close()],
];

describe.each(waits)('%s', (_title, wait) => {
  const kinds: [string, () => unknown][] = [
    ['synchronous', () => {}],
    ['asynchronous', () => sleep(5)],
    ['failing', () => Promise.reject(error)],
  ];
  it.each(kinds)('waits for what is added behind finished of the last, %s task', async (_kind, fn) => {
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => {
      const first = tasks.add(fn);
      void first.finished
        .then(() => tasks.add(fn))
        .then(({ finished }) => finished.then(() => tasks.add(() => sleep(5))));
    });
    await wait(middleware);
    const { pending, running, succeeded, failed } = middleware.stats;
    expect({ pending, running, ended: succeeded + failed }).toEqual({ pending: 0, running: 0, ended: 3 });
  });

  const turns: [string, (then: () => void) => void][] = [
    ['many microtasks', (then) => void microtasks(100).then(then)],
    ['process.nextTick', (then) => process.nextTick(then)],
    ['microtasks in process.nextTick', (then) => process.nextTick(() => void microtasks(100).then(then))],
  ];
  it.each(turns)('waits where %s lie between the end and the add', async (_kind, later) => {
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => {
      void tasks.add(() => sleep(5)).finished.then(() => later(() => tasks.add(() => {})));
    });
    await wait(middleware);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 2 });
  });

  it('waits for what is added behind the end of a report', async () => {
    const reported = deferred();
    let list: BackgroundTasks | undefined;
    const { middleware, respond } = await serveTasks({
      onError: async () => {
        await reported.promise;
        void microtasks(10).then(() => list?.add(() => {}));
      },
    });
    await respond((tasks) => {
      list = tasks;
      tasks.add(() => Promise.reject(error));
    });
    const waited = wait(middleware);
    await sleep(5);
    reported.resolve();
    await waited;
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 1, succeeded: 1 });
  });

  it('waits when it is called in the turn in which the last task has ended', async () => {
    const { middleware, respond } = await serveTasks();
    const waited = deferred<unknown>();
    await respond((tasks) => {
      const { finished } = tasks.add(() => {});
      void finished.then(() => waited.resolve(wait(middleware)));
      void finished.then(() => microtasks(10)).then(() => tasks.add(() => {}));
    });
    await waited.promise;
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 2 });
  });

  it('waits when the last task was cancelled', async () => {
    const { middleware, open } = await serveTasks();
    const { added: tasks, end } = await open((tasks) => tasks);
    const handle = tasks.add(() => {});
    const waited = wait(middleware);
    handle.cancel();
    void handle.finished.then(() => tasks.add(() => {}));
    void sleep(5).then(end);
    await waited;
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, cancelled: 1, succeeded: 1 });
  });
});

describe('a failed waitUntil', () => {
  it.each<[string, () => void]>([
    [
      'throws',
      () => {
        throw error;
      },
    ],
    ['rejects', () => Promise.reject(error)],
  ])('that %s is waited for until the logger has taken it', async (_title, waitUntil) => {
    const logged = deferred();
    const logger = { error: jest.fn(() => logged.promise) };
    const { middleware, respond } = await serveTasks({ waitUntil, logger });
    let isIdle = false;
    const handle = await respond((tasks) => tasks.add(() => {}));
    const idle = middleware.idle().then(() => {
      isIdle = true;
    });
    await handle.finished;
    await sleep(5);
    expect(logger.error).toHaveBeenCalledTimes(1);
    expect(isIdle).toBe(false);
    logged.resolve();
    await idle;
  });
});

async function microtasks(count: number): Promise<void> {
  for (let done = 0; done < count; done++) await null;
}
