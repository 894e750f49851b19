// Tasks of the pg-boss engine whose workers die while they run: which of them are given up, and which had only stood beside.

import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { currentTask, type TaskEngine, type TaskRecord, task } from '../../lib/index.js';
import { createStore, database, type PgBossStore, queue, type StartedBoss, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { DeadlyWorker, Notes, over, retries, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on the pg-boss engine, a task whose workers die', () => {
  const client = new Client(database);
  const engines: TaskEngine[] = [];
  let store: PgBossStore;
  let boss: StartedBoss;

  beforeAll(() => client.connect());
  afterAll(() => client.end());

  beforeEach(async () => {
    store = createStore();
    boss = await startBoss(store.config);
  });

  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
    await boss.stop();
    await store.remove();
  });

  function open(): TaskEngine {
    const engine = pgBoss(boss);
    engines.push(engine);
    return engine;
  }

  async function sql(text: string): Promise<void> {
    await client.query(text.replaceAll('SCHEMA', store.config.schema));
  }

  /** As it is found after so many workers have died that ran it, of which some ran nothing else. */
  async function leave(id: string, deaths: number, timesAlone: number): Promise<void> {
    await sql(`UPDATE SCHEMA.job SET state = 'retry', started_on = now(), retry_count = ${deaths - 1},
      data = data || '{"alone": ${timesAlone}}' WHERE id = '${id}'`);
  }

  async function timesAlone(id: string): Promise<number> {
    const [job] = await boss.findJobs(queue, { id });
    return job?.data.alone ?? 0;
  }

  async function reaches(engine: TaskEngine, id: string, fits: (record: TaskRecord) => boolean): Promise<void> {
    for (;;) {
      const record = await engine.get(id);
      if (record !== undefined && fits(record)) return;
      await sleep(5);
    }
  }

  it('fails if it is what kills them, and those beside it succeed', async () => {
    const engine = open();
    await engine.work([]); // The queue is there now.
    await sql(`UPDATE SCHEMA.queue SET heartbeat_seconds = 1`);
    const harmless: string[] = [];
    for (let count = 0; count < 9; count++) harmless.push((await send(engine, { name: 'harmless', args: [] })).id);
    const { id } = await send(engine, { name: 'deadly', args: [] });
    const worker = new DeadlyWorker(join(__dirname, 'fixtures/pg-boss.ts'), store.config);
    expect(await over(engine, id)).toMatchObject({
      state: 'failed',
      attempts: 5,
      error: { message: 'task "deadly" was given up: its worker died while it ran alone, 2 times' },
    });
    expect(worker.starts).toBeGreaterThan(5);
    for (const each of harmless) expect(await over(engine, each)).toMatchObject({ state: 'succeeded' });
    await worker.stop();
  }, 90_000);

  it('is reported once when it is given up, with the number of its last attempt', async () => {
    const engine = open();
    const reports = new Notes<unknown>();
    const { id } = await send(engine, { name: 'a', args: [], key: 'k', retries: retries(10) });
    await leave(id, 5, 2);
    const runs = new Notes<void>();
    await engine.work([task('a', runs.note)], { onError: (error, context) => reports.note({ error, context }) });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 5 });
    const error = expect.objectContaining({ code: 'ERR_TASK_ABANDONED' });
    await reports.first(1);
    expect(reports.all).toEqual([{ error, context: { task: { id, name: 'a', attempt: 5 }, args: [] } }]);
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
      if (isSuspect) await leave(id, 3, 0);
    }
    const other = task('b', async (isSuspect: boolean) => runs(isSuspect));
    await engine.work([runs, other], { concurrency: 3 });
    await engine.work([runs, other], { concurrency: 3 });
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    expect(mostBesideSuspect).toBe(1);
    expect(most).toBeGreaterThan(1);
  });

  it('is left by a worker that runs something to another process, which runs nothing', async () => {
    const busy = open();
    const { waits, started, end } = waitingTask('waits');
    await busy.work([waits, task('a', () => 'busy')]);
    await send(busy, { name: 'waits', args: [] });
    await started.first(1);
    const { id } = await send(busy, { name: 'a', args: [], delay: 1000 });
    await leave(id, 3, 0);
    await sleep(1200);
    expect(await busy.get(id)).toMatchObject({ attempts: 3 });
    await open().work([task('a', () => 'idle')]);
    expect(await over(busy, id)).toMatchObject({ state: 'succeeded', attempts: 4, result: 'idle' });
    const { id: next } = await send(busy, { name: 'waits', args: ['next'] });
    expect(await started.first(2)).toContain('next'); // It takes tasks again beside the one that runs.
    end();
    await over(busy, next);
  });

  it('does not hold up a worker that does not know it, or once it is given up', async () => {
    const engine = open();
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits], { onError: () => {} });
    await send(engine, { name: 'waits', args: [1] });
    await started.first(1);
    const unknown = await send(engine, { name: 'unknown', args: [], delay: 500 });
    const givenUp = await send(engine, { name: 'waits', args: [2], delay: 500 });
    await leave(unknown.id, 3, 0);
    await leave(givenUp.id, 5, 2);
    await over(engine, givenUp.id);
    await send(engine, { name: 'waits', args: [3] });
    expect(await started.first(2)).toEqual([1, 3]);
    end();
  });

  it('does not keep its worker from what came before it', async () => {
    const engine = open();
    const order = new Notes<string>();
    const first = await send(engine, { name: 'a', args: ['first'] });
    const suspect = await send(engine, { name: 'a', args: ['suspect'] });
    const last = await send(engine, { name: 'a', args: ['last'] });
    await leave(suspect.id, 3, 0);
    await engine.work([task('a', order.note)]);
    for (const { id } of [first, suspect, last]) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    expect(order.all).toEqual(['first', 'suspect', 'last']);
    expect(await engine.get(first.id)).toMatchObject({ attempts: 1 });
    expect(await engine.get(suspect.id)).toMatchObject({ attempts: 4 });
    expect(await engine.get(last.id)).toMatchObject({ attempts: 1 });
  });

  it('is no suspect any more once a worker has lived to tell that it failed', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [], retries: retries(1, 0) });
    await leave(id, 4, 1);
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const failsFirst = task('a', () => {
      if (currentTask()?.attempt === 5) throw new Error('not yet');
      return ended;
    });
    await engine.work([failsFirst, task('b', () => {})], { onError: () => {} });
    await reaches(engine, id, ({ attempts, state }) => attempts === 6 && state === 'running');
    expect(await timesAlone(id)).toBe(0);
    expect(await over(engine, (await send(engine, { name: 'b', args: [] })).id)).toMatchObject({ state: 'succeeded' });
    end();
    await over(engine, id);
  });

  it('may be given back at the timeout of close(), which does not count', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [] });
    await leave(id, 4, 1);
    const worker = await engine.work([task('a', () => new Promise(() => {}))]);
    while ((await timesAlone(id)) !== 2) await sleep(5);
    await worker.close({ timeout: 0 });
    expect(await timesAlone(id)).toBe(1);
    await engine.work([task('a', () => {})]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
  });

  it('keeps none of its retries from it', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: [], retries: retries(2) });
    await leave(id, 4, 1);
    const fails = task('a', () => {
      throw new Error('again');
    });
    await engine.work([fails], { onError: () => {} });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 7 }); // 4 died, 3 failed.
  });
});
