// The BullMQ engine: what only this engine promises.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { Queue, Worker } from 'bullmq';
import { Cluster, Redis } from 'ioredis';
import { type BullmqOptions, bullmq } from '../../lib/drivers/bullmq/index.js';
import { errorOf } from '../../lib/drivers/bullmq/record.js';
import { currentTask, type OnError, task } from '../../lib/index.js';
import { cpuTime } from '../fixtures/cpu-time.js';
import { connection, obliterate } from './fixtures/bullmq.js';
import { startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing, failure, Notes, over, retries, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, beyond conformance', () => {
  let queue: string;

  beforeEach(() => {
    queue = `tasks-${randomUUID()}`;
  });

  afterEach(() => obliterate(queue));

  test.each([null, {}, { args: '[' }])(
    'a job of %j that somebody else has made fails, and is reported',
    async (data) => {
      const engine = closing(bullmq({ connection, queue }));
      const reported = new Notes<unknown>();
      const onError: OnError = (error, context) => reported.note({ error, task: context.task });
      await engine.work([task('a', () => {})], { onError });
      const other = new Queue(queue, { connection });
      const { id } = await other.add('a', data);
      await other.close();
      expect(await reported.first(1)).toEqual([{ error: expect.any(Error), task: { id, name: 'a', attempt: 1 } }]);
    },
  );

  test("BullMQ's telemetry is handed through to its queue and its workers", async () => {
    const names: string[] = [];
    const span = {
      setSpanOnContext: (context: unknown) => context,
      setAttribute: () => {},
      setAttributes: () => {},
      addEvent: () => {},
      recordException: () => {},
      end: () => {},
    };
    const telemetry = {
      tracer: {
        startSpan: (name: string) => {
          names.push(name);
          return span;
        },
      },
      contextManager: {
        with: (_context: unknown, fn: () => unknown) => fn(),
        active: () => ({}),
        getMetadata: () => '{}',
        fromMetadata: () => ({}),
      },
    } as unknown as NonNullable<BullmqOptions['telemetry']>;
    const engine = closing(bullmq({ connection, queue, telemetry }));
    const { id } = await send(engine, { name: 'a', args: [] });
    await engine.work([task('a', () => {})]);
    await over(engine, id);
    expect(names).toEqual(expect.arrayContaining([expect.stringMatching(/^add /), expect.stringMatching(/^process /)]));
  });

  test.each<[string, unknown]>([
    ['no options', undefined],
    ['no connection', {}],
    ['a connection that is no object', { connection: 'redis://localhost' }],
    ['an empty queue name', { connection, queue: '' }],
    ['a queue name with a colon', { connection, queue: 'a:b' }],
    ['an unknown option', { connection, prefix: 'a' }],
    ['telemetry that is none', { connection, telemetry: {} }],
    ['a Cluster of ioredis', { connection: new Cluster([connection], { lazyConnect: true }) }],
    ['a client of another package', { connection: { options: { socket: connection }, connect: () => {} } }],
    ['a database that is no number', { connection: { ...connection, db: 'a' } }],
    ['a database that is no whole number', { connection: { ...connection, db: 0.5 } }],
    ['a database below 0', { connection: { ...connection, db: -1 } }],
    ['a URL whose database is no number', { connection: { url: 'redis://127.0.0.1/a' } }],
    ['a list for a connection', { connection: [connection] }],
    ['a port that is no number', { connection: { port: 'abc' } }],
    ['a port that is none', { connection: { port: 70_000 } }],
    ['a host that is no string', { connection: { host: 5 } }],
    ['a URL that is none', { connection: { url: 'redis://a:b' } }],
    ['a URL of something else', { connection: { url: 'http://127.0.0.1' } }],
    ['a URL that is no string', { connection: { url: 5 } }],
    ['a time limit that is no number', { connection: { ...connection, connectTimeout: 'soon' } }],
    ['Sentinels without a name', { connection: { sentinels: [connection] } }],
    ['Sentinels that are no list', { connection: { sentinels: 'a', name: 'a' } }],
    ['a keyPrefix', { connection: { ...connection, keyPrefix: 'a:' } }],
    ['a client with a keyPrefix', { connection: new Redis({ ...connection, keyPrefix: 'a:', lazyConnect: true }) }],
  ])('refuses %s', (_, options) => {
    const make = bullmq as (options: unknown) => unknown;
    expect(() => make(options)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  });

  test("takes the options of an ioredis client, and leaves the client to its owner's use", async () => {
    const client = new Redis(connection);
    const engine = bullmq({ connection: client, queue });
    const { id } = await send(engine, { name: 'a', args: [1] });
    await engine.work([task('a', (value: number) => value + 1)]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', result: 2 });
    await engine.close();
    expect(await client.ping()).toBe('PONG');
    await client.quit();
  });

  test('takes a URL', async () => {
    const engine = closing(bullmq({ connection: { url: 'redis://127.0.0.1:6379/0' }, queue }));
    const { id } = await send(engine, { name: 'a', args: [] });
    expect(await closing(bullmq({ connection, queue })).get(id)).toMatchObject({ id, name: 'a' });
  });

  test('has 2 ** 21 - 1 priorities around 0, and refuses others', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const runs = new Notes<number>();
    const priorities = [0, -(2 ** 20) + 1, 2 ** 20 - 1, -1, 1];
    for (const priority of priorities) await send(engine, { name: 'a', args: [priority], priority });
    for (const priority of [2 ** 20, -(2 ** 20)]) {
      const error = await failure(send(engine, { name: 'a', args: [], priority }));
      expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('priority') });
    }
    await engine.work([task('a', runs.note)], { concurrency: 1 });
    expect(await runs.first(5)).toEqual([2 ** 20 - 1, 1, 0, -1, -(2 ** 20) + 1]);
  });

  test('refuses a name that UTF-8 cannot hold', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const error = await failure(send(engine, { name: 'half \ud83d', args: [] }));
    expect(error).toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('name') });
    await send(engine, { name: 'whole \ud83d\ude00', args: [] });
  });

  test('does not count as an attempt that a worker took a task which it does not know', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const reports = new Notes<unknown>();
    const ignorant = await engine.work([task('known', () => {})], { onError: reports.note });
    const { id } = await send(engine, { name: 'unknown', args: [] });
    await reports.first(1);
    await ignorant.close(); // It has put it back by then.
    expect(await engine.get(id)).toMatchObject({ state: 'queued', attempts: 0 });
    expect(await engine.get(id)).not.toHaveProperty('startedAt');
    await engine.work([task('unknown', () => 'known at last')]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1, result: 'known at last' });
  });

  test('a task finds the one worker among others that knows it', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const onError = (): void => {};
    for (const name of ['a', 'b', 'c']) await engine.work([task(name, () => name)], { onError });
    for (const name of ['a', 'b', 'c']) {
      const { id } = await send(engine, { name, args: [] });
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1, result: name });
    }
  }, 60_000);

  test.each([
    ['a number', 7, 7],
    ['an object', { a: 1 }, { a: 1 }],
    ['a string', 'text', 'text'],
    ['nothing', undefined, null],
  ])('a job that a worker of somebody else has completed with %s has succeeded', async (_, value, result) => {
    const engine = closing(bullmq({ connection, queue }));
    const { id } = await send(engine, { name: 'a', args: [] });
    const other = new Worker(queue, async () => value, { connection });
    await once(other, 'completed');
    await other.close();
    expect(await engine.get(id)).toMatchObject({ state: 'succeeded', attempts: 1, result });
    expect(await engine.get(id, { result: false })).not.toHaveProperty('result');
  });

  test('runs what version 0.1.0 has stored, and counts its attempts alike', async () => {
    const old = new Queue(queue, { connection });
    const data = { args: '[1]', retries: retries(1), unused: 0 };
    const options = { priority: 2 ** 20, attempts: 2, backoff: { type: 'custom' } };
    const ids = [randomUUID(), randomUUID()];
    for (const jobId of ids) await old.add('a', data, { ...options, jobId });
    // Its workers did not know the second one, which they have taken three times.
    const job = await old.getJob(String(ids[1]));
    await job?.updateData({ ...data, unused: 3 });
    const client = new Redis(connection);
    await client.hset(`bull:${queue}:${ids[1]}`, 'ats', 3);
    await client.quit();
    await old.close();
    const engine = closing(bullmq({ connection, queue }));
    const attempts = new Notes<unknown>();
    const failsFirst = task('a', (value: number) => {
      const attempt = currentTask()?.attempt;
      attempts.note(attempt);
      if (attempt === 1) throw new Error('not yet');
      return value + 1;
    });
    await engine.work([failsFirst]);
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 2 });
    expect(attempts.all.sort()).toEqual([1, 1, 2, 2]);
  });

  test('a poll without the result costs the same, however large the result and the arguments are', async () => {
    const redis = await startRedis();
    const own = { connection: { host: '127.0.0.1', port: redis.port } };
    const engine = bullmq(own);
    const large = 'x'.repeat(10_000_000);
    const { id } = await send(engine, { name: 'a', args: [large] });
    await engine.work([task('a', (argument: string) => argument)]);
    expect(await over(engine, id)).toMatchObject({ result: large });
    await engine.close();
    const polls = bullmq(own);
    const client = new Redis(own.connection);
    const sent = async (): Promise<number> => Number(/total_net_output_bytes:(\d+)/.exec(await client.info())?.[1]);
    const begin = await sent();
    expect(await polls.get(id, { result: false })).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect((await sent()) - begin).toBeLessThan(100_000);
    await polls.close();
    client.disconnect();
    await redis.remove();
  });

  test('thousands that are enqueued at once leave the event loop to others, and keep their order', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const runs = new Notes<number>();
    await engine.get(randomUUID()); // It is connected.
    const stored = Array.from({ length: 1000 }, (_, number) => send(engine, { name: 'a', args: [number] }));
    // Others may hold this process up in the middle of a turn.
    const start = cpuTime();
    let isOver = false;
    let longest = 0;
    const turns = async (): Promise<void> => {
      for (let last = start; !isOver; ) {
        await new Promise(setImmediate);
        const now = cpuTime();
        longest = Math.max(longest, now - last);
        last = now;
      }
    };
    const counted = turns();
    await Promise.all(stored);
    const whole = cpuTime() - start;
    isOver = true;
    await counted;
    expect(longest).toBeLessThan(whole / 3);
    await engine.work([task('a', runs.note)], { concurrency: 1 });
    expect(await runs.first(100)).toEqual(Array.from({ length: 100 }, (_, number) => number));
  }, 60_000);

  test('keeps the name and the message of an error apart, whatever they hold', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const kept = { name: 'Prisma: known', message: 'a: b\n"c"' };
    const fails = task('fails', () => {
      throw Object.assign(new Error(kept.message), { name: kept.name });
    });
    await engine.work([fails], { onError: () => {} });
    const { id } = await send(engine, { name: 'fails', args: [] });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', error: kept });
  });

  test.each(['job stalled more than allowable limit', '', 'null', '{"name":1,"message":"a"}', '{"name":"a"}'])(
    'the reason %j of a failure is not its own, and stays whole',
    (reason) => {
      expect(errorOf(reason)).toEqual({ name: 'Error', message: reason });
    },
  );

  test('runs as many tasks as there are at once with concurrency Infinity', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits], { concurrency: Number.POSITIVE_INFINITY });
    for (let number = 0; number < 30; number++) await send(engine, { name: 'waits', args: [number] });
    await started.first(30);
    end();
  });

  test('what is being enqueued when close() is called is either stored or rejected', async () => {
    const engine = bullmq({ connection, queue });
    const early = send(engine, { name: 'a', args: [] });
    await early;
    const late = [1, 2, 3].map((number) => send(engine, { name: 'a', args: [number] }));
    await engine.close();
    const stored: string[] = [];
    for (const result of await Promise.allSettled([early, ...late])) {
      if (result.status === 'fulfilled') stored.push(result.value.id);
      else expect(result.reason).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    }
    const bull = new Queue(queue, { connection });
    expect((await bull.getJobs()).map((job) => job.id).sort()).toEqual(stored.sort());
    await bull.close();
  });

  test('close({ timeout }) refuses a bad timeout', async () => {
    const engine = closing(bullmq({ connection, queue }));
    const worker = await engine.work([]);
    expect(await failure(worker.close({ timeout: -1 }))).toMatchObject({ code: 'ERR_INVALID_OPTION' });
    await worker.close();
  });
});
