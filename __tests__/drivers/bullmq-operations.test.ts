// The BullMQ engine: what people do with its queue, beyond what the conformance suite asks of every engine.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { bullmq } from '../../lib/drivers/bullmq/index.js';
import { currentTask, type TaskEngine, task } from '../../lib/index.js';
import { connection, obliterate } from './fixtures/bullmq.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing, eventually, Notes, over, retries, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'operations on the BullMQ engine', () => {
  const redis = new Redis(connection);
  let queue: string;

  beforeEach(() => {
    queue = `tasks-${randomUUID()}`;
  });

  afterEach(() => obliterate(queue));

  afterAll(() => redis.quit());

  function open(): TaskEngine {
    return closing(bullmq({ connection, queue }));
  }

  function keyOf(type: string): string {
    return `bull:${queue}:${type}`;
  }

  describe('enqueueMany', () => {
    let server: OwnServer;

    beforeEach(async () => {
      server = await startRedis();
    });

    afterEach(() => server.remove());

    test('stores none where Redis has no room for all', async () => {
      const own = { host: '127.0.0.1', port: server.port };
      const engine = bullmq({ connection: own });
      await engine.ready();
      const client = new Redis(own);
      await client.config('SET', 'maxmemory', '1mb');
      const many = Array.from({ length: 100 }, (): [string] => ['x'.repeat(100_000)]);
      const refused = engine.enqueueMany(task<[string]>('a'), many);
      await expect(refused).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      await client.config('SET', 'maxmemory', '0');
      expect(await engine.stats()).toMatchObject({ queued: 0 });
      expect(await engine.list()).toEqual([]);
      client.disconnect();
      await engine.close();
    });

    test('stores all or none where Redis dies meanwhile', async () => {
      const engine = bullmq({ connection: { host: '127.0.0.1', port: server.port } });
      await engine.ready();
      const many = Array.from({ length: 5000 }, (_, number): [number] => [number]);
      let stored = 0;
      const sends = (async () => {
        for (;;) stored += (await engine.enqueueMany(task<[number]>('a'), many)).length;
      })().catch(() => {});
      await sleep(700);
      await server.stop();
      await sends;
      await server.start();
      await eventually(() => engine.ready());
      const { queued } = await engine.stats();
      // One of which no answer came may be stored.
      expect([stored, stored + many.length]).toContain(queued);
      await engine.close();
    });
  });

  test('tasks that were enqueued as many have the same options as others', async () => {
    const engine = open();
    const options = { delay: 3_600_000, priority: 7, timeout: 5000, retries: retries(3) };
    const [{ id } = { id: '' }] = await engine.enqueueMany(task<[number]>('a', options), [[1]]);
    const single = await send(engine, { name: 'a', args: [1], ...options });
    const [many, one] = await Promise.all([id, single.id].map((each) => redis.hgetall(keyOf(each))));
    const bare = (job: Record<string, string> = {}): object => {
      const { jobId: _, ...opts } = JSON.parse(job['opts'] ?? '{}');
      return { ...job, timestamp: 0, opts };
    };
    expect(bare(many)).toEqual(bare(one));
    const places = await Promise.all([id, single.id].map((each) => redis.zscore(keyOf('delayed'), each)));
    expect(Math.abs(Number(places[0]) - Number(places[1])) / 0x1000).toBeLessThan(10_000);
  });

  test('many that are enqueued at once run in their order, beside others', async () => {
    const engine = open();
    const runs = new Notes<number>();
    await send(engine, { name: 'a', args: [0] });
    await engine.enqueueMany(
      task<[number]>('a'),
      Array.from({ length: 30 }, (_, number): [number] => [number + 1]),
    );
    await send(engine, { name: 'a', args: [31] });
    await engine.work([task('a', runs.note)], { concurrency: 1 });
    expect(await runs.first(32)).toEqual(Array.from({ length: 32 }, (_, number) => number));
  });

  describe('a task that is to run once more', () => {
    const behind = task<[number]>('waits', { key: 'k', whileRunning: 'again' });

    async function start(
      options: object = {},
    ): Promise<{ engine: TaskEngine; end: Notes<() => void>; runs: number[] }> {
      const engine = open();
      const end = new Notes<() => void>();
      const runs: number[] = [];
      const waits = task(
        'waits',
        async (value: number) => {
          runs.push(value);
          await new Promise<void>((resolve, reject) => {
            end.note(() => (value < 0 ? reject(new Error('negative')) : resolve()));
            currentTask()?.signal.addEventListener('abort', () => reject(new Error('aborted')));
          });
        },
        options,
      );
      await engine.work([waits], { onError: () => {} });
      return { engine, end, runs };
    }

    test('runs after one that failed, and after its retries', async () => {
      const { engine, end, runs } = await start();
      const first = await engine.enqueue(behind.with({ retries: retries(1) }), -1);
      const [fail] = await end.first(1);
      const second = await engine.enqueue(behind, 2);
      fail?.();
      const [, failAgain] = await end.first(2);
      expect(runs).toEqual([-1, -1]);
      failAgain?.();
      expect(await over(engine, first.id)).toMatchObject({ state: 'failed' });
      const [, , succeed] = await end.first(3);
      expect(await engine.enqueue(behind.with({ whileRunning: 'keep' }), 3)).toEqual(second);
      succeed?.();
      expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
      expect(runs).toEqual([-1, -1, 2]);
      expect((await engine.enqueue(behind, 4)).id).not.toBe(second.id);
      const [, , , last] = await end.first(4);
      last?.();
    });

    test('runs after one that was cancelled', async () => {
      const { engine, end } = await start();
      const first = await engine.enqueue(behind, 1);
      await end.first(1);
      const second = await engine.enqueue(behind, 2);
      expect(await engine.stats()).toMatchObject({ queued: 1, due: 0, running: 1 });
      await engine.cancel(first.id);
      expect(await over(engine, first.id)).toMatchObject({ state: 'cancelled' });
      const [, succeed] = await end.first(2);
      succeed?.();
      expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded' });
    });

    test('is listed, and can be cancelled or removed: then the other one has its key', async () => {
      const { engine, end } = await start();
      const first = await engine.enqueue(behind, 1);
      const [succeed] = await end.first(1);
      for (const call of ['cancel', 'remove'] as const) {
        const second = await engine.enqueue(behind, 2);
        expect(await engine.list({ state: 'queued' })).toMatchObject([{ id: second.id, args: [2], key: 'k' }]);
        expect(await engine.promote(second.id)).toBe(false);
        await engine[call](second.id);
        expect(await engine.enqueue(behind.with({ whileRunning: 'keep' }), 3)).toEqual(first);
      }
      succeed?.();
      expect(await over(engine, first.id)).toMatchObject({ state: 'succeeded' });
      expect(await engine.stats()).toMatchObject({ queued: 0, running: 0, cancelled: 1 });
      expect((await redis.keys(keyOf('*'))).filter((key) => key.includes('dependencies'))).toEqual([]);
    });

    test('waits its delay then', async () => {
      const { engine, end } = await start();
      await engine.enqueue(behind, 1);
      const [succeed] = await end.first(1);
      const { id } = await engine.enqueue(behind.with({ delay: 3_600_000 }), 2);
      succeed?.();
      while ((await engine.get(id))?.runAt === undefined) await sleep(10);
      expect(await engine.promote(id)).toBe(true);
      const [, succeedToo] = await end.first(2);
      succeedToo?.();
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
    });

    test('is exactly one, however many ask for it at once', async () => {
      const { engine, end, runs } = await start();
      await engine.enqueue(behind, 0);
      const [succeed] = await end.first(1);
      const other = open();
      const asked = Array.from({ length: 40 }, (_, number) =>
        (number % 2 === 0 ? engine : other).enqueue(behind, number),
      );
      const ids = new Set((await Promise.all(asked)).map(({ id }) => id));
      expect(ids.size).toBe(1);
      succeed?.();
      const [, succeedToo] = await end.first(2);
      succeedToo?.();
      await over(engine, String([...ids][0]));
      expect(runs).toHaveLength(2);
      expect(await engine.stats()).toMatchObject({ queued: 0, succeeded: 2 });
    });
  });

  describe('list', () => {
    test('goes on behind a task that is in another state by now, or was removed', async () => {
      const engine = open();
      const ids: string[] = [];
      for (let number = 0; number < 6; number++) {
        ids.unshift((await send(engine, { name: 'a', args: [number] })).id);
        await sleep(2); // Ids tell the time in ms.
      }
      await engine.cancel(String(ids[2]));
      await engine.remove(String(ids[1]));
      const listed = async (after?: string): Promise<string[]> =>
        (await engine.list({ state: 'queued', limit: 2, ...(after !== undefined && { after }) })).map(({ id }) => id);
      expect(await listed(ids[1])).toEqual([ids[3], ids[4]]);
      expect(await listed(ids[2])).toEqual([ids[3], ids[4]]);
      expect(await listed(ids[4])).toEqual([ids[5]]);
      expect(await listed(ids[5])).toEqual([]);
    });

    test('walks through many, by pages and by offsets, also of one name among thousands', async () => {
      const engine = open();
      const stored = await engine.enqueueMany(
        task<[number]>('common'),
        Array.from({ length: 3000 }, (_, number): [number] => [number]),
      );
      const rare: string[] = [];
      for (let number = 0; number < 3; number++) rare.unshift((await send(engine, { name: 'rare', args: [] })).id);
      const { length } = await engine.enqueueMany(
        task<[number]>('common'),
        Array.from({ length: 1500 }, (_, number): [number] => [number]),
      );
      expect((await engine.list({ name: 'rare', limit: 2 })).map(({ id }) => id)).toEqual(rare.slice(0, 2));
      expect((await engine.list({ name: 'rare', offset: 2 })).map(({ id }) => id)).toEqual(rare.slice(2));
      expect((await engine.list({ name: 'rare', after: String(rare[1]) })).map(({ id }) => id)).toEqual(rare.slice(2));
      const newest = stored.map(({ id }) => id).reverse();
      const offset = length + rare.length;
      expect((await engine.list({ offset, limit: 1000 })).map(({ id }) => id)).toEqual(newest.slice(0, 1000));
      const after = String(newest[999]);
      expect((await engine.list({ after, limit: 1000 })).map(({ id }) => id)).toEqual(newest.slice(1000, 2000));
    });

    test('has the tasks of all states, those that run first', async () => {
      const engine = open();
      const fails = task('fails', () => Promise.reject(new Error('no')));
      const { waits, started, end } = waitingTask('waits');
      await engine.work([fails, waits, task('done', () => {})], { onError: () => {} });
      const names = new Map<string, string>();
      const add = async (name: string, options = {}): Promise<string> => {
        const { id } = await send(engine, { name, args: [], ...options });
        names.set(id, name);
        return id;
      };
      await over(engine, await add('done'));
      await over(engine, await add('fails'));
      await engine.cancel(await add('cancelled', { delay: 3_600_000 }));
      await add('delayed', { delay: 3_600_000 });
      await add('waits');
      await started.first(1);
      const listed = (await engine.list()).map(({ name, state }) => `${name} ${state}`);
      end();
      expect(listed).toEqual([
        'waits running',
        'delayed queued',
        'fails failed',
        'cancelled cancelled',
        'done succeeded',
      ]);
    });
  });

  describe('stats', () => {
    test('count tasks that nobody knows as due, since they were enqueued', async () => {
      const engine = open();
      const reports = new Notes<unknown>();
      await engine.work([task('known', () => {})], { onError: reports.note });
      const start = Date.now();
      const { id } = await send(engine, { name: 'unknown', args: [] });
      await reports.first(1);
      const stats = await engine.stats();
      expect(stats).toMatchObject({ queued: 1, due: 1 });
      expect(Number(stats.oldestDueAt) - start).toBeLessThan(1000);
      const record = await engine.get(id);
      expect(record).not.toHaveProperty('runAt');
    });

    test('tell since when the oldest one is due, whatever the priorities, and not how old a retried one is', async () => {
      const engine = open();
      const old = Date.now() - 1_000_000;
      const { id } = await send(engine, { name: 'a', args: [], priority: -5 });
      await send(engine, { name: 'a', args: [], priority: 5 });
      await redis.hset(keyOf(id), 'timestamp', old);
      expect((await engine.stats()).oldestDueAt).toEqual(new Date(old));
      await engine.cancel(id);
      await engine.retry(id);
      expect(Number((await engine.stats()).oldestDueAt)).toBeGreaterThan(old + 900_000);
    });
  });

  test('a cancelled task is kept for a week', async () => {
    const engine = open();
    const [old, young] = [await send(engine, { name: 'a', args: [] }), await send(engine, { name: 'a', args: [] })];
    await engine.cancel(old.id);
    await redis.zadd(keyOf('tasks-cancelled'), Date.now() - 7 * 24 * 60 * 60 * 1000 - 1000, old.id);
    expect(await engine.get(old.id)).toMatchObject({ state: 'cancelled' });
    await engine.cancel(young.id);
    expect(await engine.get(old.id)).toBeUndefined();
    expect(await engine.stats()).toMatchObject({ cancelled: 1 });
  });

  test('a task that failed, also one of 0.1.0, is queued behind those of its priority by retry()', async () => {
    const engine = open();
    const { id } = await send(engine, { name: 'a', args: ['old'], key: 'k' });
    const worker = await engine.work([task('a', () => Promise.reject(new Error('no')))], { onError: () => {} });
    await over(engine, id);
    await worker.close();
    await redis.hset(
      keyOf(id),
      'failedReason',
      '{"name":"TypeError","message":"as 0.1.0 wrote it"}',
      'stacktrace',
      '[]',
    );
    expect(await engine.get(id)).toMatchObject({ error: { name: 'TypeError', message: 'as 0.1.0 wrote it' } });
    await send(engine, { name: 'a', args: ['urgent'], priority: 1 });
    await send(engine, { name: 'a', args: ['new'] });
    await send(engine, { name: 'a', args: ['later'], priority: -1 });
    expect(await engine.retry(id)).toBe(1);
    expect(await send(engine, { name: 'a', args: [], key: 'k' })).toEqual({ id });
    const runs = new Notes<string>();
    await engine.work([task('a', runs.note)], { concurrency: 1 });
    expect(await runs.first(4)).toEqual(['urgent', 'new', 'old', 'later']);
  });

  test('two engines that retry the same tasks queue each of them once', async () => {
    const [engine, other] = [open(), open()];
    const stored = await engine.enqueueMany(
      task<[number]>('a'),
      Array.from({ length: 2500 }, (_, number): [number] => [number]),
    );
    for (let next = 0; next < stored.length; next += 250) {
      const counts = await Promise.all(stored.slice(next, next + 250).map(({ id }) => engine.cancel(id)));
      expect(new Set(counts)).toEqual(new Set(['cancelled']));
    }
    const retried = await Promise.all([engine.retry({ name: 'a' }), other.retry({ state: 'cancelled' })]);
    expect((retried[0] ?? 0) + (retried[1] ?? 0)).toBeLessThanOrEqual(2500);
    await engine.retry({ state: 'cancelled' });
    expect(await engine.stats()).toMatchObject({ queued: 2500, cancelled: 0 });
    expect(await engine.remove({ name: 'a' })).toBe(2500);
    expect(await redis.keys(keyOf('*-*-*-*-*'))).toEqual([]);
  });

  test('progress does not go into the stream of events', async () => {
    const engine = open();
    const large = 'x'.repeat(60_000);
    const reports = task('reports', () => {
      currentTask()?.progress(large);
    });
    await engine.work([reports]);
    const { id } = await engine.enqueue(reports);
    expect(await over(engine, id)).toMatchObject({ progress: large });
    expect(JSON.stringify(await redis.xrange(keyOf('events'), '-', '+')).length).toBeLessThan(10_000);
  });

  test('a worker, idle or busy, hears from Redis every few seconds', async () => {
    const engine = open();
    const { waits, started, end } = waitingTask('waits');
    const worker = await engine.work([waits], { concurrency: 1 });
    await send(engine, { name: 'waits', args: [] });
    await started.first(1);
    const { lastPollAt } = worker.health();
    await sleep(3000);
    expect(worker.health().healthy).toBe(true);
    expect(Number(worker.health().lastPollAt)).toBeGreaterThan(Number(lastPollAt));
    end();
  });

  test("BullMQ's own tools still see the queue", async () => {
    const engine = open();
    const bull = new Queue(queue, { connection });
    await engine.enqueueMany(task<[number]>('a'), [[1], [2]]);
    await engine.enqueueMany(task<[number]>('a', { delay: 1000 }), [[3]]);
    expect(await bull.getJobCounts('prioritized', 'delayed')).toEqual({ prioritized: 2, delayed: 1 });
    const [job] = await bull.getPrioritized();
    expect(job).toMatchObject({ name: 'a', data: { args: '[1]' }, attemptsMade: 0 });
    await bull.close();
  });
});
