// Promise 9, the last sentence: what the library does by itself to many tasks leaves the event loop its turns.

import { setImmediate as nextTurn } from 'node:timers/promises';
import { type BackgroundTasksMiddleware, type BackgroundTasksOptions, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const count = 2_000;

afterEach(() => {
  jest.restoreAllMocks();
});

/** A clock that each look at it moves on: whoever does not look between two tasks does them all in one turn. */
function fakeClock(ms: number): void {
  let now = performance.now();
  jest.spyOn(performance, 'now').mockImplementation(() => {
    now += ms;
    return now;
  });
}

/** The most tasks that are over between two turns of the event loop, until all are. */
async function mostInATurn(middleware: BackgroundTasksMiddleware): Promise<number> {
  let most = 0;
  let left = middleware.stats.pending;
  while (left > 0) {
    await nextTurn();
    const { pending } = middleware.stats;
    most = Math.max(most, left - pending);
    left = pending;
  }
  return most;
}

/** Adds tasks behind one that goes on until it is told to end. */
async function serveMany(options: BackgroundTasksOptions, fn: () => unknown = () => {}) {
  const { middleware, respond } = await serveTasks({ onError: () => {}, ...options });
  const gate = deferred<void>();
  const begun = deferred();
  await respond((tasks) => {
    tasks.add(
      task(
        'first',
        () => {
          begun.resolve();
          return gate.promise;
        },
        { when: 'always' },
      ),
    );
    for (let added = 0; added < count; added++) tasks.add(fn);
  });
  await begun.promise;
  expect(middleware.stats.pending).toBe(count);
  fakeClock(1);
  return { middleware, gate };
}

it('close() gives tasks up by time slices', async () => {
  const { middleware } = await serveMany({});
  const closed = middleware.close({ timeout: 0 });
  expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
  expect((await closed).abandoned).toHaveLength(count + 1);
  expect(middleware.stats).toMatchObject({ pending: 0, running: 0, abandoned: count + 1 });
});

it('close() does so across many responses', async () => {
  const { middleware, respond } = await serveTasks({ onError: () => {} });
  for (let response = 0; response < 100; response++) {
    await respond((tasks) => {
      tasks.add(() => new Promise(() => {}));
      for (let added = 0; added < 10; added++) tasks.add(() => {});
    });
  }
  while (middleware.stats.running < 100) await nextTurn();
  fakeClock(1);
  const closed = middleware.close({ timeout: 0 });
  expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
  expect((await closed).abandoned).toHaveLength(1100);
});

it('no task begins while close() gives up', async () => {
  const { middleware, respond } = await serveTasks({ onError: () => {} });
  const ends = deferred();
  const ran = jest.fn();
  await respond((tasks) => {
    for (let added = 0; added < 1000; added++) tasks.add(() => new Promise(() => {}));
  });
  const handle = await respond((tasks) => {
    const first = tasks.add(() => ends.promise);
    tasks.add(ran);
    return first;
  });
  while (handle.status !== 'running') await nextTurn();
  fakeClock(1);
  const closed = middleware.close({ timeout: 0 });
  while (middleware.stats.abandoned === 0) await nextTurn();
  ends.resolve();
  expect((await closed).abandoned).toHaveLength(1001);
  expect(await closed).toMatchObject({ succeeded: 1 });
  await middleware.idle();
  expect(handle.status).toBe('succeeded');
  expect(ran).not.toHaveBeenCalled();
});

describe('stopOnError', () => {
  it('skips by time slices', async () => {
    const reports: unknown[] = [];
    const onError = (error: unknown): void => void reports.push([error, middleware.stats.pending]);
    const { middleware, gate } = await serveMany({ stopOnError: true, onError });
    gate.reject('boom');
    expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
    await middleware.idle();
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 1, skipped: count });
    expect(reports).toEqual([['boom', 0]]);
  });

  it('runs what onError adds behind', async () => {
    const ran = jest.fn();
    const { middleware, gate } = await serveMany({
      stopOnError: true,
      onError: (_error, { res }) => void res?.locals.backgroundTasks.add(ran),
    });
    gate.reject('boom');
    await middleware.idle();
    expect(middleware.stats).toMatchObject({ failed: 1, skipped: count, succeeded: 1 });
    expect(ran).toHaveBeenCalledTimes(1);
  });

  it('goes on skipping when close() gives up', async () => {
    const reports: unknown[] = [];
    const onError = (error: unknown): void => void reports.push(error);
    const { middleware, gate } = await serveMany({ stopOnError: true, onError });
    gate.reject('boom');
    while (middleware.stats.skipped === 0) await nextTurn();
    const closed = middleware.close({ timeout: 0 });
    expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
    expect(await closed).toEqual({ succeeded: 0, failed: 0, abandoned: [] });
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 1, skipped: count, abandoned: 0 });
    expect(reports).toEqual(['boom']);
  });
});

it('when skips by time slices', async () => {
  const { middleware, gate } = await serveMany({ when: () => false });
  gate.resolve();
  expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
  expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 1, skipped: count });
});

it('when that throws fails tasks by time slices', async () => {
  const { middleware, gate } = await serveMany({
    when: () => {
      throw new Error('boom');
    },
  });
  gate.resolve();
  expect(await mostInATurn(middleware)).toBeLessThanOrEqual(10);
  expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 1, failed: count });
});

it('a clock that stands still ends a time slice', async () => {
  const { middleware, gate } = await serveMany({});
  fakeClock(0);
  gate.resolve();
  expect(await mostInATurn(middleware)).toBeLessThanOrEqual(100);
  expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: count + 1 });
});
