// Tasks of the BullMQ engine whose workers die while they run: which of them are given up, and which had only stood beside.

import { type ChildProcess, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { BullmqDriver } from '../../lib/drivers/bullmq/driver.js';
import { createEngine } from '../../lib/engine/index.js';
import { currentTask, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { connection, obliterate, shortTiming } from './fixtures/bullmq.js';
import { send } from './fixtures/send.js';
import { closing, Notes, over, retries } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'on the BullMQ engine, a task whose workers die', () => {
  const redis = new Redis(connection);
  const children = new Set<ChildProcess>();
  let queue = '';

  beforeEach(() => {
    queue = `tasks-${randomUUID()}`;
  });

  afterEach(async () => {
    for (const child of children) child.kill('SIGKILL');
    children.clear();
    await obliterate(queue);
  });

  afterAll(() => redis.quit());

  function open(): TaskEngine {
    return closing(createEngine(new BullmqDriver(queue, connection, shortTiming)));
  }

  function startProcess(): ChildProcess {
    const program = join(__dirname, 'fixtures/bullmq-poison.ts');
    const child = spawn(process.execPath, ['--require', join(__dirname, '../fixtures/typescript.cjs'), program, queue]);
    children.add(child);
    return child;
  }

  /** A process that is started again whenever it ends. */
  function keepAlive(): void {
    const child = startProcess();
    child.once('exit', () => {
      if (children.delete(child)) keepAlive();
    });
  }

  function keyOf(id: string): string {
    return `bull:${queue}:${id}`;
  }

  /** As workers leave it that died while they ran it: so often, and so often of that while it ran alone. */
  async function leave(id: string, deaths: number, timesAlone: number): Promise<void> {
    await redis.hset(keyOf(id), { stc: deaths, ats: deaths, 'tasks:alone': timesAlone });
  }

  it('fails if it is what kills them, and those beside it succeed', async () => {
    const engine = open();
    const good = await Promise.all(Array.from({ length: 9 }, () => send(engine, { name: 'good', args: [] })));
    const { id } = await send(engine, { name: 'poison', args: [] });
    keepAlive();
    expect(await over(engine, id)).toMatchObject({
      state: 'failed',
      attempts: 5,
      error: { message: 'task "poison" was given up: its worker died while it ran alone, 2 times' },
    });
    for (const task of good) expect(await over(engine, task.id)).toMatchObject({ state: 'succeeded' });
  }, 90_000);

  it('is reported once when it is given up, with the number of its last attempt, and frees its key', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [], key: 'k', retries: retries(10) });
    await leave(id, 5, 2);
    const errors = new Notes<unknown>();
    const runs = new Notes<void>();
    await engine.work([task('a', runs.note)], { onError: (error, context) => errors.note({ error, context }) });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 5 });
    const error = expect.objectContaining({ code: 'ERR_TASK_ABANDONED' });
    expect(await errors.first(1)).toEqual([{ error, context: { task: { id, name: 'a', attempt: 5 }, args: [] } }]);
    expect(runs.all).toEqual([]);
    expect((await send(engine, { name: 'a', args: [], key: 'k' })).id).not.toBe(id);
  });

  it('is not given up, however many they were, as long as it did not run alone', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [] });
    await leave(id, 50, 1);
    await engine.work([task('a', () => 'well')]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 51, result: 'well' });
  });

  it('runs alone in its process then, whichever worker knows it', async () => {
    const engine = open();
    const ids: string[] = [];
    let running = 0;
    let most = 0;
    let mostBesideSuspect = 0;
    const runs = async (isSuspect: boolean): Promise<void> => {
      most = Math.max(most, ++running);
      if (isSuspect) mostBesideSuspect = Math.max(mostBesideSuspect, running);
      await sleep(30);
      if (isSuspect) mostBesideSuspect = Math.max(mostBesideSuspect, running);
      running--;
    };
    for (let index = 0; index < 40; index++) {
      const isSuspect = index % 10 === 5;
      const { id } = await send(engine, { name: index % 2 === 0 ? 'a' : 'b', args: [isSuspect] });
      ids.push(id);
      if (isSuspect) await leave(id, 3, 0);
    }
    await engine.work([task('a', runs)], { concurrency: 3 });
    await engine.work([task('b', runs)], { concurrency: 3 });
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    expect(mostBesideSuspect).toBe(1);
    expect(most).toBeGreaterThan(1);
  });

  it('leaves the tasks behind it to other processes while it runs', async () => {
    const [engine, other] = [open(), open()];
    const ended = deferred();
    const started = new Notes<void>();
    const { id } = await send(engine, { name: 'long', args: [] });
    await leave(id, 3, 0);
    const long = task('long', () => {
      started.note();
      return ended.promise;
    });
    await engine.work([long, task('a', () => {})]);
    await started.first(1);
    const behind = await Promise.all(Array.from({ length: 20 }, () => send(engine, { name: 'a', args: [] })));
    await other.work([task('a', () => {})]);
    for (const task of behind) expect(await over(engine, task.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    ended.resolve();
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 4 });
  });

  it('is no suspect any more once a worker has lived to tell that it failed', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [], retries: retries(1) });
    await leave(id, 4, 1);
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
    await leave(id, 4, 1);
    const timesAlone = (): Promise<string | null> => redis.hget(keyOf(id), 'tasks:alone');
    const hangs = task('a', () => new Promise(() => {}));
    const worker = await engine.work([hangs]);
    while ((await timesAlone()) !== '2') await sleep(5);
    await worker.close({ timeout: 0 });
    expect(await timesAlone()).toBe('1');
    await engine.work([task('a', () => {})]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
  });

  it('does not run again if it was cancelled before', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'hangs', args: [], key: 'k', retries: retries(3) });
    const child = startProcess();
    while ((await engine.get(id))?.state !== 'running') await sleep(5);
    expect(await engine.cancel(id)).toBe('signalled');
    child.kill('SIGKILL');
    const runs = new Notes<void>();
    await engine.work([task('hangs', runs.note)]);
    expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 1 });
    expect(runs.all).toEqual([]);
    expect((await send(engine, { name: 'hangs', args: [], key: 'k' })).id).not.toBe(id);
  });

  it('is cancelled at once if it is cancelled afterwards', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'hangs', args: [] });
    const child = startProcess();
    while ((await engine.get(id))?.state !== 'running') await sleep(5);
    child.kill('SIGKILL');
    while ((await engine.get(id))?.state === 'running') await sleep(5);
    expect(await engine.stats()).toMatchObject({ queued: 1, due: 1, running: 0 });
    expect((await engine.list({ state: 'queued' })).map((record) => record.id)).toEqual([id]);
    expect(await engine.list({ state: 'running' })).toEqual([]);
    expect(await engine.cancel(id)).toBe('cancelled');
    const runs = new Notes<void>();
    await engine.work([task('hangs', runs.note)]);
    await sleep(500);
    expect(runs.all).toEqual([]);
    expect(await engine.stats()).toMatchObject({ queued: 0, running: 0, cancelled: 1 });
  });

  it('runs again before the one that waits behind it', async () => {
    const engine = open();
    const options = { name: 'hangs', key: 'k', whileRunning: 'again' } as const;
    const first = await send(engine, { ...options, args: [1] });
    const child = startProcess();
    while ((await engine.get(first.id))?.state !== 'running') await sleep(5);
    const second = await send(engine, { ...options, args: [2] });
    child.kill('SIGKILL');
    const runs = new Notes<number>();
    await engine.work([task('hangs', runs.note)]);
    expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(await engine.get(first.id)).toMatchObject({ state: 'succeeded', attempts: 2 });
    expect(runs.all).toEqual([1, 2]);
  });
});
