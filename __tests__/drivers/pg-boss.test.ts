// The pg-boss engine: what only this engine promises.

import { randomBytes, randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import type { Boss, Db } from '../../lib/drivers/pg-boss/boss.js';
import { PgBossDriver } from '../../lib/drivers/pg-boss/driver.js';
import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { currentTask, type OnError, type TaskEngine, task } from '../../lib/index.js';
import {
  createStore,
  database,
  nativeRequire,
  type PgBossStore,
  queue,
  type StartedBoss,
  startBoss,
} from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import {
  closing,
  eventually,
  failure,
  Notes,
  over,
  retries,
  startWorkerProcess,
  waitingTask,
} from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'pg-boss, beyond conformance', () => {
  let store: PgBossStore;
  let boss: StartedBoss;
  let engine: TaskEngine;
  const others: TaskEngine[] = [];

  beforeEach(async () => {
    store = createStore();
    boss = await startBoss(store.config);
    engine = pgBoss(boss);
  });

  afterEach(async () => {
    await Promise.all([engine, ...others.splice(0)].map((each) => each.close()));
    await boss.stop();
    await store.remove();
  });

  async function sql(text: string): Promise<void> {
    const client = new Client(database);
    await client.connect();
    await client.query(text.replaceAll('SCHEMA', store.config.schema));
    await client.end();
  }

  /** An engine on the same pg-boss, but for these methods. */
  function open(methods: Partial<Boss>): TaskEngine {
    const other = pgBoss(overlaid(methods));
    others.push(other);
    return other;
  }

  function overlaid(methods: { [Name in keyof Boss]?: Boss[Name] | undefined }): Boss {
    return new Proxy(boss, {
      get(target, name) {
        if (Object.hasOwn(methods, name)) return Reflect.get(methods, name);
        const value: unknown = Reflect.get(target, name);
        return typeof value === 'function' ? value.bind(target) : value;
      },
    });
  }

  /** Calls `before` before ends of attempts are written. */
  function beforeEnds(before: () => Promise<void>): Partial<Boss> {
    const executeSql: Db['executeSql'] = async (text, values) => {
      if (text.includes('AS ended')) await before();
      return boss.getDb().executeSql(text, values);
    };
    return { getDb: () => ({ executeSql }) };
  }

  test.each([
    ['name', 'with NUL', { name: 'nul \0' }],
    ['name', 'with half a surrogate pair', { name: 'half \ud83d' }],
    ['name', 'of 2,002 bytes', { name: 'ž'.repeat(1001) }],
    ['timeout', 'of a day', { timeout: 24 * 60 * 60 * 1000 }],
    ['delay', 'of 11 years', { delay: 11 * 365 * 24 * 60 * 60 * 1000 }],
    ['priority', 'over 32 bits', { priority: 2 ** 31 }],
    ['priority', 'under 32 bits', { priority: -(2 ** 31) }],
  ])('refuses a %s %s', async (option, _, message) => {
    const error = await failure(send(engine, { name: 'a', args: [], ...message }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(option) });
  });

  test('refuses arguments that PostgreSQL has no room for, which no later enqueue could store either', async () => {
    const message = { id: randomUUID(), name: 'a', args: [], json: 'x'.repeat(2 ** 28) };
    const error = await failure(new PgBossDriver(boss).insert(message, new AbortController().signal));
    expect(error).toMatchObject({ code: 'ERR_TASK_NOT_SERIALIZABLE', message: expect.stringContaining('jsonb') });
  });

  test.each([null, {}, { name: 'a', args: '[' }])('a job of %j that somebody else has made fails', async (data) => {
    const reported = new Notes<unknown>();
    const ran = new Notes<void>();
    const onError: OnError = (error, context) => reported.note({ error, task: context.task });
    await engine.work([task('a', () => ran.note())], { onError });
    const id = (await boss.send(queue, data as object, {})) ?? '';
    const seen = { error: expect.any(Error), task: { id, name: 'unknown', attempt: 1 } };
    expect(await reported.first(1)).toEqual([seen]);
    expect(await boss.findJobs(queue, { id })).toMatchObject([{ state: 'failed' }]);
    expect(await engine.get(id)).toMatchObject({ id, state: 'failed', attempts: 1, error: expect.anything() });
    await send(engine, { name: 'a', args: [] });
    await ran.first(1);
  });

  it('a job that somebody else has made, of a task that no worker knows, is not taken again at once', async () => {
    const fetched = new Notes<void>();
    const reported = new Notes<unknown>();
    const fetch: Boss['fetch'] = (...args) => {
      fetched.note();
      return boss.fetch(...args);
    };
    const onError: OnError = (_error, context) => reported.note(context.task);
    await open({ fetch }).work([task('a', () => {})], { onError });
    const id = await boss.send(queue, { name: 'b', args: '[]' }, {});
    expect(await reported.first(1)).toEqual([{ id, name: 'b', attempt: 1 }]);
    await sleep(700);
    expect(fetched.all.length).toBeLessThan(8);
  });

  it('a worker takes the next task while the end of the last one is written, and no more than that', async () => {
    let write = (): void => {};
    const written = new Promise<void>((resolve) => {
      write = resolve;
    });
    const slow = open(beforeEnds(() => written));
    const ran = new Notes<number>();
    for (const number of [1, 2, 3, 4]) await send(slow, { name: 'a', args: [number] });
    await slow.work([task('a', ran.note)], { concurrency: 1 });
    expect(await ran.first(2)).toEqual([1, 2]);
    await sleep(100);
    expect(ran.all).toEqual([1, 2]);
    write();
    expect(await ran.first(4)).toEqual([1, 2, 3, 4]);
  });

  test.each([undefined, null, {}, 'postgres://localhost'])('refuses %j for a pg-boss', (value) => {
    const make = pgBoss as (boss: unknown) => unknown;
    expect(() => make(value)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  });

  test('refuses a pg-boss of before 12.35, where a task would run again and again', () => {
    const older = overlaid({ isTimekeeping: undefined });
    const message: unknown = expect.stringContaining('12.35 or later');
    expect(() => pgBoss(older)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION', message }));
  });

  test('takes what is just within its limits', async () => {
    const limits = { timeout: 86_399_999, delay: 3650 * 24 * 60 * 60 * 1000, priority: 2 ** 31 - 1 };
    const { id } = await send(engine, { name: 'whole \ud83d\ude00', args: [], ...limits });
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
  });

  test('a task with the longest name that it takes runs, and those beside it do', async () => {
    const longest = randomBytes(1000).toString('hex'); // PostgreSQL cannot compress it.
    const ids: string[] = [];
    for (const name of ['a', longest, 'b']) ids.push((await send(engine, { name, args: [] })).id);
    await engine.work(['a', longest, 'b'].map((name) => task(name, () => {})));
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
  });

  test('refuses a queue of its name that was made with another policy', async () => {
    await boss.createQueue(queue, {});
    const refused = { code: 'ERR_INVALID_OPTION', message: expect.stringContaining('policy "standard"') };
    expect(await failure(send(engine, { name: 'a', args: [] }))).toMatchObject(refused);
    expect(await failure(engine.work([]))).toMatchObject(refused);
    await boss.deleteQueue(queue);
    await expect(send(engine, { name: 'a', args: [] })).resolves.toHaveProperty('id');
  });

  test('what enqueue has rejected while it waited for a connection is not stored later', async () => {
    const busy = await startBoss({ ...store.config, max: 1 });
    const own = closing(pgBoss(busy));
    const { id } = await send(own, { name: 'a', args: [] });
    const holder = new Client(database);
    await holder.connect();
    await holder.query('SELECT pg_advisory_lock(25)');
    const held = busy.getDb().executeSql('SELECT pg_advisory_xact_lock(25)');
    const rejected = [{}, { key: 'k' }].map((options) => failure(send(own, { name: 'a', args: [], ...options })));
    for (const error of rejected) expect(await error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await holder.end();
    await held;
    const later = await send(own, { name: 'a', args: [], key: 'k' }); // It stands behind the others in the pool's queue.
    await busy.stop();
    const stored = await boss.findJobs(queue, {});
    expect(stored.map((job) => job.id)).toEqual([id, later.id]);
  }, 30_000);

  test('without its result, neither the result nor the arguments of a task are read', async () => {
    const own = await startBoss({ ...store.config, max: 1 }); // All reads of one connection are counted when it is told to.
    const db = own.getDb();
    /** How many pages of large values were read so far. */
    async function pages(): Promise<unknown> {
      await db.executeSql('SELECT pg_stat_force_next_flush()');
      const table = `'${store.config.schema}.job_common'::regclass`;
      const reads = 'toast_blks_hit + toast_blks_read AS reads';
      return (await db.executeSql(`SELECT ${reads} FROM pg_statio_all_tables WHERE relid = ${table}`)).rows[0];
    }
    const large = randomBytes(500_000).toString('hex');
    const polls = closing(pgBoss(own));
    const { id } = await send(polls, { name: 'a', args: [large] });
    const begin = await pages();
    expect(await polls.get(id, { result: false })).toMatchObject({ name: 'a', state: 'queued', attempts: 0 });
    expect(await pages()).toEqual(begin);
    const worker = await polls.work([task('a', (argument: string) => argument)]);
    expect(await over(polls, id)).toMatchObject({ result: large });
    await worker.close();
    const end = await pages();
    expect(await polls.get(id, { result: false })).toEqual({
      id,
      name: 'a',
      state: 'succeeded',
      attempts: 1,
      enqueuedAt: expect.any(Date),
      startedAt: expect.any(Date),
      finishedAt: expect.any(Date),
    });
    expect(await pages()).toEqual(end);
    await polls.get(id);
    expect(await pages()).not.toEqual(end);
    await polls.close();
    await own.stop();
  });

  test('makes its queue anew where somebody has deleted it', async () => {
    const ran = new Notes<number>();
    const takes = task('a', ran.note);
    await engine.work([takes]);
    await send(engine, { name: 'a', args: [1] });
    await ran.first(1);
    await boss.deleteQueue(queue);
    await Promise.all([2, 3].map((value) => send(engine, { name: 'a', args: [value] })));
    expect((await ran.first(3)).sort()).toEqual([1, 2, 3]);
    await boss.deleteQueue(queue);
    expect(await engine.get(randomUUID())).toBeUndefined();
    const { id } = await send(engine, { name: 'a', args: [4], key: 'k' });
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
  });

  test('a worker takes of the tasks that it does not know each name once, and that counts as no attempt', async () => {
    const ignorant = await engine.work([task('known', () => {})], { onError: () => {} });
    const { id } = await send(engine, { name: 'unknown', args: [1] });
    await eventually(async () => {
      const [job] = await boss.findJobs(queue, { id });
      if (job?.data.unused !== 1) throw new Error('not yet');
    });
    const later = await send(engine, { name: 'unknown', args: [2] });
    const known = await send(engine, { name: 'known', args: [] });
    await over(engine, known.id);
    await ignorant.close(); // It has put it back by then.
    const [first] = await boss.findJobs(queue, { id });
    const [second] = await boss.findJobs(queue, { id: later.id });
    expect([first?.data.unused, second?.startedOn]).toEqual([1, null]);
    expect(await engine.get(id)).toMatchObject({ state: 'queued', attempts: 0 });
    expect(await engine.get(id)).not.toHaveProperty('startedAt');
    await engine.work([task('unknown', (value: number) => value)]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1, result: 1 });
    expect(await over(engine, later.id)).toMatchObject({ state: 'succeeded', attempts: 1, result: 2 });
  });

  test('a task finds the one worker among others that knows it', async () => {
    const onError = (): void => {};
    for (const name of ['a', 'b', 'c']) await engine.work([task(name, () => name)], { onError });
    for (const name of ['a', 'b', 'c']) {
      const { id } = await send(engine, { name, args: [] });
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1, result: name });
    }
  }, 60_000);

  test('a worker sends heartbeats for what it runs', async () => {
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'waits', args: [] });
    await started.first(1);
    await eventually(async () => {
      const [job] = (await boss.findJobs(queue, { id })) as unknown as { heartbeatOn: Date; startedOn: Date }[];
      if (Number(job?.heartbeatOn) < Number(job?.startedOn) + 3000) throw new Error('not yet');
    });
    end();
  }, 20_000);

  test.each([
    ['fails', () => Promise.reject(new Error('late'))],
    ['succeeds', () => Promise.resolve()],
  ])('an attempt that %s after another worker has taken its task changes nothing', async (_, outcome) => {
    const reports = new Notes<unknown>();
    const started = new Notes<unknown>();
    let end = (): void => {};
    const ended = new Promise<void>((resolve) => {
      end = resolve;
    });
    const stale = task('stale', async () => {
      started.note(undefined);
      await ended;
      return outcome();
    });
    const worker = await engine.work([stale], { onError: reports.note });
    const { id } = await send(engine, { name: 'stale', args: [] });
    await started.first(1);
    await sql(`UPDATE SCHEMA.job SET retry_count = retry_count + 1 WHERE id = '${id}'`);
    end();
    await worker.close(); // It has written down what it could by then.
    expect(await engine.get(id)).toMatchObject({ state: 'running', attempts: 2 });
    expect(reports.all).toEqual([]);
  });

  test('a retry keeps the exact backoff, not one of whole seconds', async () => {
    const fails = task('fails', () => {
      throw new Error('again');
    });
    await engine.work([fails], { onError: () => {} });
    const { id } = await send(engine, { name: 'fails', args: [], retries: retries(1, 1_234_567) });
    const job = await eventually(async () => {
      const [found] = await boss.findJobs(queue, { id });
      if (found?.data.failed !== 1) throw new Error('not yet');
      return found;
    });
    expect(job).toHaveProperty('startAfter');
    const { startAfter } = job as unknown as { startAfter: Date };
    expect(Math.abs(Number(startAfter) - Date.now() - 1_234_567)).toBeLessThan(5000);
  });

  describe('an attempt that has ended', () => {
    const fails = task('fails', () => {
      throw new Error('no');
    });

    test('for good is kept with its error', async () => {
      const reports = new Notes<unknown>();
      await engine.work([fails], { onError: reports.note });
      const { id } = await send(engine, { name: 'fails', args: [] });
      const failed = { state: 'failed', attempts: 1, error: { name: 'Error', message: 'no' } };
      expect(await over(engine, id)).toMatchObject(failed);
      expect(await engine.get(id)).not.toHaveProperty('result');
      expect(await reports.first(1)).toMatchObject([{ message: 'no' }]);
    });

    test('is written down after another worker has taken its task, and changes nothing', async () => {
      const reports = new Notes<unknown>();
      const slowed = new Notes<void>();
      let write = (): void => {};
      const written = new Promise<void>((resolve) => {
        write = resolve;
      });
      const slow = open(
        beforeEnds(() => {
          slowed.note();
          return written;
        }),
      );
      const worker = await slow.work([fails], { onError: reports.note });
      const { id } = await send(slow, { name: 'fails', args: [] });
      await slowed.first(1);
      await sql(`UPDATE SCHEMA.job SET retry_count = retry_count + 1 WHERE id = '${id}'`);
      write();
      await worker.close();
      expect(await engine.get(id)).toMatchObject({ state: 'running', attempts: 2 });
      expect(reports.all).toEqual([]);
    });

    test('costs no attempt and no backoff where it can be written at the second try only', async () => {
      let tries = 0;
      const own = open(
        beforeEnds(async () => {
          if (tries++ === 0) throw new Error('the connection is gone');
        }),
      );
      const runs = new Notes<number>();
      const flaky = task('flaky', () => {
        runs.note(Date.now());
        throw new Error('no');
      });
      await own.work([flaky], { onError: () => {} });
      const { id } = await send(own, { name: 'flaky', args: [], retries: retries(1, 3000) });
      expect(await over(own, id)).toMatchObject({ state: 'failed', attempts: 2 });
      const [first = 0, second = 0] = await runs.first(2);
      expect(second - first).toBeGreaterThanOrEqual(3000);
      expect(runs.all).toHaveLength(2);
    }, 60_000);

    test('by close() is written down also where that succeeds at the second try only', async () => {
      let tries = 0;
      const own = open(
        beforeEnds(async () => {
          if (tries++ === 0) throw new Error('the connection is gone');
        }),
      );
      const { waits, started } = waitingTask('waits');
      const worker = await own.work([waits]);
      const { id } = await send(own, { name: 'waits', args: [] });
      await started.first(1);
      await worker.close({ timeout: 0 });
      expect(await own.get(id)).toMatchObject({ state: 'queued', attempts: 1 });
    });

    test('by close() can be taken again at once', async () => {
      const { waits, started } = waitingTask('waits');
      const worker = await engine.work([waits]);
      const { id } = await send(engine, { name: 'waits', args: [] });
      await started.first(1);
      await worker.close({ timeout: 0 });
      const start = Date.now();
      await engine.work([task('waits', () => 'elsewhere')]);
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 'elsewhere' });
      expect(Date.now() - start).toBeLessThan(1000);
    });
  });

  test('one that has failed can be tried again by pg-boss', async () => {
    const attempts = new Notes<number | undefined>();
    const flaky = task('flaky', () => {
      attempts.note(currentTask()?.attempt);
      if (attempts.all.length === 1) throw new Error('no');
    });
    await engine.work([flaky], { onError: () => {} });
    const { id } = await send(engine, { name: 'flaky', args: [] });
    await over(engine, id);
    await boss.retry(queue, id);
    expect(await eventually(() => over(engine, id))).toMatchObject({ state: 'succeeded', attempts: 2 });
    expect(attempts.all).toEqual([1, 2]);
  });

  test('pg-boss too says of a task that it has failed', async () => {
    const fails = task('fails', () => {
      throw new Error('no');
    });
    await engine.work([fails], { onError: () => {} });
    const { id } = await send(engine, { name: 'fails', args: [] });
    await over(engine, id);
    expect(await boss.findJobs(queue, { id })).toMatchObject([{ state: 'failed' }]);
  });

  test('a key is held by the running task also where others with it are over', async () => {
    const { waits, started, end } = waitingTask('waits');
    await engine.work([task('ends', () => {}), waits]);
    for (let round = 0; round < 3; round++) {
      const { id } = await send(engine, { name: 'ends', args: [], key: 'k' });
      await over(engine, id);
    }
    const running = await send(engine, { name: 'waits', args: [], key: 'k' });
    await started.first(1);
    expect(await send(engine, { name: 'waits', args: [], key: 'k' })).toEqual(running);
    end();
  });

  test('a task that pg-boss was told to cancel is cancelled', async () => {
    const { id } = await send(engine, { name: 'a', args: [] });
    await boss.cancel(queue, id);
    const record = await engine.get(id);
    expect(record).toMatchObject({ state: 'cancelled', attempts: 0, finishedAt: expect.any(Date) });
    expect(record).not.toHaveProperty('error');
  });

  test("close() leaves the user's pg-boss open", async () => {
    await send(engine, { name: 'a', args: [] });
    await engine.work([]);
    await engine.close();
    await boss.createQueue('mine', {});
    expect(await boss.send('mine', {}, {})).toEqual(expect.any(String));
  });

  test('a pg-boss has one error listener, however many engines were made of it', async () => {
    const listeners = boss.listenerCount('error');
    for (let count = 0; count < 12; count++) await pgBoss(boss).close();
    expect(boss.listenerCount('error')).toBe(listeners);
  });

  test('connections that PostgreSQL ends, before and after engine.close(), end no process', async () => {
    const child = await startWorkerProcess(join(__dirname, 'fixtures/pg-boss.ts'), {
      ...store.config,
      application_name: store.config.schema,
      pauseBeforeStop: 1000,
    });
    const cut = `SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'SCHEMA'`;
    await sql(cut);
    const { id } = await send(engine, { name: 'conformance.record', args: [] });
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    child.send('close');
    let isOver = false;
    const exited = once(child, 'exit').finally(() => {
      isOver = true;
    });
    while (!isOver) {
      await sql(cut);
      await sleep(100);
    }
    expect(await exited).toEqual([0, null]);
  }, 30_000);

  test('close({ timeout }) refuses a bad timeout', async () => {
    const worker = await engine.work([]);
    expect(await failure(worker.close({ timeout: -1 }))).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    await worker.close();
  });
});

describeWith({ node: 22 }, 'pg-boss that was not started', () => {
  test('enqueue rejects with ERR_ENGINE_UNAVAILABLE, which says what to do', async () => {
    const { PgBoss } = nativeRequire('pg-boss') as { PgBoss: new (options: object) => StartedBoss };
    const engine = closing(pgBoss(new PgBoss({ connectionString: database })));
    const error = await failure(send(engine, { name: 'a', args: [] }));
    expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', message: expect.stringContaining('start()') });
  });
});
