// Leases of the SQLite engine: when a task is taken from its worker, and when not.

import { setTimeout as sleep } from 'node:timers/promises';
import { task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { block, over, reaches, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

describeWith({ node: 22 }, 'leases on SQLite', () => {
  const { connect, newPath, open } = sqliteFolder();

  const die =
    "UPDATE background_tasks SET state = 'running', attempts = attempts + 1, worker = 'dead', lease_until = 0";

  it('are renewed while a task runs, also while close() waits for it', async () => {
    const path = newPath();
    const engine = open({ path, lease: 150 });
    const other = open({ path, lease: 150, pollInterval: 20 });
    let runs = 0;
    const running = deferred();
    const slow = task('a', async () => {
      runs++;
      running.resolve();
      await sleep(900);
    });
    const worker = await engine.work([slow]);
    const { id } = await send(engine, { name: 'a', args: [] });
    await running.promise;
    await other.work([slow]);
    await sleep(300);
    await worker.close();
    expect(runs).toBe(1);
    expect(await other.get(id)).toMatchObject({ state: 'succeeded', attempts: 1 });
  });

  it('a worker that lost its lease does not end the task that another one has taken', async () => {
    const path = newPath();
    const [slowEngine, fastEngine] = [open({ path }), open({ path, lease: 60, pollInterval: 20 })];
    const ended = deferred();
    const running = deferred();
    const errors: unknown[] = [];
    const slow = task('a', async () => {
      running.resolve();
      await ended.promise;
      throw new Error('too late to matter');
    });
    await slowEngine.work([slow], { concurrency: 1, onError: (error) => void errors.push(error) });
    const { id } = await send(slowEngine, { name: 'a', args: [] });
    await running.promise;
    connect(path).exec("UPDATE background_tasks SET worker = 'dead', lease_until = 0");
    await fastEngine.work([task('a', () => 'by the second')]);
    await over(fastEngine, id);
    ended.resolve();
    await slowEngine.close();
    expect(await fastEngine.get(id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 'by the second' });
    expect(errors).toEqual([]);
  });

  it('a worker whose event loop was blocked for longer does not take its own task again', async () => {
    const engine = open({ path: newPath(), lease: 60, pollInterval: 10 });
    let runs = 0;
    const blocks = task('a', async () => {
      runs++;
      block(200);
      await sleep(50);
    });
    await engine.work([blocks]);
    const { id } = await send(engine, { name: 'a', args: [] });
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(runs).toBe(1);
  });

  it.each([
    ['the event loop is blocked', 0],
    ['it is and the clock is set forward', 20_000],
  ])('a worker does not take what another one of the process runs when %s', async (_, step) => {
    const engine = open({ path: newPath(), lease: 60, pollInterval: 10 });
    const ended = deferred();
    await engine.work([task('waits', () => ended.promise)], { concurrency: 1 });
    await engine.work([task('blocks', () => block(100))], { concurrency: 1 });
    const { id } = await send(engine, { name: 'waits', args: [] });
    await reaches(engine, id, ({ state }) => state === 'running');
    const { now } = Date;
    jest.spyOn(Date, 'now').mockImplementation(() => now() + step);
    const ids = await Promise.all(Array.from({ length: 5 }, () => send(engine, { name: 'blocks', args: [] })));
    for (const blocking of ids) await over(engine, blocking.id);
    ended.resolve();
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
  });

  it.each([
    ['forward', 20_000],
    ['back', -20_000],
  ])(
    'no worker takes a task that runs, of its own or of another process, when the clock is set %s',
    async (_, step) => {
      const path = newPath();
      const engine = open({ path, lease: 3000, pollInterval: 20 });
      const other = open({ path, lease: 600, pollInterval: 10 });
      const ended = deferred();
      const waits = task('a', () => ended.promise);
      await engine.work([waits], { concurrency: 1 });
      const { id } = await send(engine, { name: 'a', args: [] });
      await reaches(engine, id, ({ state }) => state === 'running');
      await other.work([waits]);
      await send(engine, { name: 'lost', args: [] }); // Its lease runs out meanwhile.
      connect(path).exec(`${die} WHERE name = 'lost'`);
      await sleep(50);
      const { now } = Date;
      jest.spyOn(Date, 'now').mockImplementation(() => now() + step);
      await sleep(700);
      ended.resolve();
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    },
  );

  it('nor after a lock of the database for longer than the lease', async () => {
    const path = newPath();
    const engine = open({ path, lease: 600 });
    const ended = deferred();
    const waits = task('a', () => ended.promise);
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'a', args: [] });
    await reaches(engine, id, ({ state }) => state === 'running');
    // So many that one of them writes first.
    for (let count = 0; count < 8; count++) await open({ path, lease: 600 }).work([waits]);
    const locker = connect(path);
    locker.exec('BEGIN IMMEDIATE');
    await sleep(900);
    locker.exec('COMMIT');
    await sleep(500);
    ended.resolve();
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
  });

  it('a lost worker does not use up the retries', async () => {
    const path = newPath();
    const engine = open({ path, lease: 30, pollInterval: 1_000_000 });
    const retries = { limit: 1, minDelay: 0, maxDelay: 0, factor: 1, jitter: false };
    const { id } = await send(engine, { name: 'a', args: [], retries });
    connect(path).exec(die);
    const fails = task('a', () => {
      throw new Error('again');
    });
    await engine.work([fails], { onError: () => {} });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 3 });
  });
});
