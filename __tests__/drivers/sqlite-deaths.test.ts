// Tasks of the SQLite engine whose workers die while they run: which of them are given up, and which had only stood beside.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import type Database from 'better-sqlite3';
import type { SqliteOptions } from '../../lib/drivers/sqlite/index.js';
import { currentTask, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { over, sqliteFolder } from './fixtures/sqlite-folder.js';
import { DeadlyWorker } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

describeWith({ node: 22 }, 'on the SQLite engine, a task whose workers die', () => {
  const folder = sqliteFolder();
  let path = '';

  beforeEach(() => {
    path = folder.newPath();
  });

  function open(options: Partial<SqliteOptions> = {}): TaskEngine {
    return folder.open({ path, pollInterval: 20, lease: 300, ...options } as SqliteOptions);
  }

  function connect(): Database.Database {
    return folder.connect(path);
  }

  /** As workers leave it that die while they run it: once for each number, which says whether it ran alone then. */
  function leave(id: string, deaths: number, timesAlone: number): void {
    connect()
      .prepare(
        `UPDATE background_tasks SET state = 'running', worker = 'dead', lease_until = 0, attempts = @deaths,
         lost = @deaths - 1, times_alone = @timesAlone WHERE id = @id`,
      )
      .run({ id, deaths, timesAlone });
  }

  it('fails if it is what kills them, and those beside it succeed', async () => {
    const engine = open({ lease: 600 });
    const harmless = await Promise.all(Array.from({ length: 9 }, () => send(engine, { name: 'harmless', args: [] })));
    const { id } = await send(engine, { name: 'deadly', args: [] });
    const config = { path, lease: 600, pollInterval: 50 };
    const worker = new DeadlyWorker(join(__dirname, 'fixtures/sqlite.ts'), config);
    expect(await over(engine, id)).toMatchObject({
      state: 'failed',
      error: { message: 'task "deadly" was given up: its worker died while it ran alone, 2 times' },
    });
    expect(worker.starts).toBeGreaterThan(5);
    for (const each of harmless) expect(await over(engine, each.id)).toMatchObject({ state: 'succeeded' });
    await worker.stop();
  }, 90_000);

  it('is reported once when it is given up, with the number of its last attempt', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [], key: 'k' });
    leave(id, 5, 2);
    const errors: unknown[] = [];
    await engine.work([], { onError: (error, context) => void errors.push({ error, context }) });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 5 });
    const error = expect.objectContaining({ code: 'ERR_TASK_ABANDONED' });
    while (errors.length === 0) await sleep(10);
    expect(errors).toEqual([{ error, context: { task: { id, name: 'a', attempt: 5 }, args: [] } }]);
    expect((await send(engine, { name: 'a', args: [], key: 'k' })).id).not.toBe(id);
  });

  it('ends as cancelled where it was cancelled, and is not reported', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [] });
    leave(id, 5, 2);
    expect(await open().cancel(id)).toBe('signalled');
    const onError = jest.fn();
    await engine.work([], { onError });
    expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 5 });
    await engine.close();
    expect(onError).not.toHaveBeenCalled();
  });

  it('is not given up, however many they were, as long as it did not run alone', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [] });
    leave(id, 50, 1);
    await engine.work([task('a', () => 'well')]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 51, result: 'well' });
  });

  it('runs alone in its process then, after those that run, before those behind it, on whichever worker', async () => {
    const engine = open();
    const ids: string[] = [];
    let running = 0;
    let most = 0;
    let mostBesideSuspect = 0;
    const runs = task('a', async (isSuspect: boolean) => {
      most = Math.max(most, ++running);
      if (isSuspect) mostBesideSuspect = Math.max(mostBesideSuspect, running);
      await sleep(30);
      if (isSuspect) mostBesideSuspect = Math.max(mostBesideSuspect, running);
      running--;
    });
    for (let index = 0; index < 40; index++) {
      const isSuspect = index % 10 === 5;
      const { id } = await send(engine, { name: index % 2 === 0 ? 'a' : 'b', args: [isSuspect] });
      ids.push(id);
      if (isSuspect) leave(id, 3, 0);
    }
    const other = task('b', async (isSuspect: boolean) => runs(isSuspect));
    await engine.work([runs, other], { concurrency: 3 });
    await engine.work([runs, other], { concurrency: 3 });
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    expect(mostBesideSuspect).toBe(1);
    expect(most).toBeGreaterThan(1);
  });

  it('is no suspect any more once a worker has lived to tell that it failed', async () => {
    const engine = open();
    const retries = { limit: 1, minDelay: 0, maxDelay: 0, factor: 1, jitter: false };
    const { id } = await send(engine, { name: 'a', args: [], retries });
    leave(id, 4, 1);
    const ended = deferred();
    const failsFirst = task('a', () => {
      if (currentTask()?.attempt === 5) throw new Error('not yet');
      return ended.promise;
    });
    const beside = task('b', () => {});
    await engine.work([failsFirst, beside], { onError: () => {} });
    while ((await engine.get(id))?.attempts !== 6) await sleep(5);
    expect(await over(engine, (await send(engine, { name: 'b', args: [] })).id)).toMatchObject({ state: 'succeeded' });
    ended.resolve();
    await over(engine, id);
  });

  it('may be given back at the timeout of close(), which does not count', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [] });
    leave(id, 4, 1);
    const select = connect().prepare<[], { times_alone: number }>('SELECT times_alone FROM background_tasks');
    const hangs = task('a', () => new Promise(() => {}));
    const worker = await engine.work([hangs]);
    while (select.get()?.times_alone !== 2) await sleep(5);
    await worker.close({ timeout: 0 });
    expect(select.get()).toEqual({ times_alone: 1 });
    await engine.work([task('a', () => {})]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
  });
});
