// The hand-over to Celery: what a real Celery worker makes of the messages.

import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import { connect } from 'amqplib';
import express from 'express';
import { Redis } from 'ioredis';
import { type CeleryOptions, celery, type Kwargs, kwargs } from '../../lib/drivers/celery/index.js';
import {
  backgroundTasks,
  type EnqueueTrace,
  type TaskEngine,
  type TaskRecord,
  task,
  taskStatus,
} from '../../lib/index.js';
import { serve } from '../fixtures/serve.js';
import { deleteQueue, nested, rabbitmq } from './fixtures/celery.js';
import { celeryAppEnvironment, python, startCeleryWorker, stopCeleryWorker } from './fixtures/celery-worker.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { type Sent, send } from './fixtures/send.js';
import { closing } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

const patience = 120_000;

function open(options: CeleryOptions): TaskEngine {
  return closing(celery(options));
}

interface Broker {
  readonly name: string;
  url(redis: OwnServer): string;
  /** The queue's first message, as it is stored: the message is taken out. */
  take(url: string, queue: string): Promise<StoredMessage>;
  remove(queue: string): Promise<void>;
}

interface StoredMessage {
  headers: Record<string, unknown>;
  properties: Record<string, unknown>;
  body: unknown;
}

const brokers: Broker[] = [
  {
    name: 'RabbitMQ',
    url: () => rabbitmq,
    take: async (url, queue) => {
      const connection = await connect(url);
      const channel = await connection.createChannel();
      const message = await channel.get(queue, { noAck: true });
      await connection.close();
      if (message === false) throw new Error('the queue is empty');
      const { headers, ...properties } = message.properties;
      return { headers: { ...headers }, properties, body: JSON.parse(message.content.toString()) };
    },
    remove: deleteQueue,
  },
  {
    name: 'Redis',
    url: ({ port }) => `redis://127.0.0.1:${port}/1`,
    take: async (url, queue) => {
      const redis = new Redis(url);
      const envelope = JSON.parse(String(await redis.rpop(queue)));
      redis.disconnect();
      const { headers, body, ...properties } = envelope;
      return { headers, properties, body: JSON.parse(Buffer.from(body, 'base64').toString()) };
    },
    remove: async () => {},
  },
];

const celeryInstalled = [python, '-c', 'import celery, amqp, redis'] as const;

describeWith({ program: celeryInstalled }, 'celery: workers', () => {
  describeWith({ program: ['redis-server', '--version'] }, 'with Redis for results', () => {
    describeWith({ server: ['RabbitMQ', 5672] }, 'with RabbitMQ', () => {
      let redis: OwnServer;
      let backend: string;

      beforeAll(async () => {
        redis = await startRedis();
        backend = `redis://127.0.0.1:${redis.port}/0`;
      }, patience);

      afterAll(() => redis.remove());

      describe.each(brokers)('over $name', (broker) => {
        const queue = `celery-test-${randomUUID()}`;
        let stopWorker: () => Promise<void>;
        let engine: TaskEngine;

        const run = async (message: Sent): Promise<TaskRecord> => {
          const { id } = await send(engine, message);
          return over(engine, id);
        };

        beforeAll(async () => {
          const worker = await startCeleryWorker({ broker: broker.url(redis), backend, queue });
          stopWorker = () => stopCeleryWorker(worker);
        }, patience);

        beforeEach(() => {
          engine = open({ broker: broker.url(redis), queue, backend });
        });

        afterAll(async () => {
          await stopWorker();
          await broker.remove(queue);
        }, patience);

        it(
          'a worker runs the task, and get() reads its result',
          async () => {
            const before = Date.now();
            const { id } = await send(engine, { name: 'images.resize', args: ['/a.png', 3] });
            const record = await over(engine, id);
            expect(record).toEqual({
              id,
              name: 'images.resize',
              state: 'succeeded',
              attempts: 1,
              result: '/a.png: 3 x None',
              enqueuedAt: expect.any(Date),
              finishedAt: expect.any(Date),
            });
            expect(Number(record.enqueuedAt)).toBeGreaterThanOrEqual(before);
            expect(Number(record.finishedAt)).toBeGreaterThanOrEqual(Number(record.enqueuedAt));
            expect(Number(record.finishedAt)).toBeLessThanOrEqual(Date.now());
          },
          patience,
        );

        it(
          'arguments arrive to the letter',
          async () => {
            const lists: unknown[][] = [
              [],
              [null, true, false, 0, -0.5, 1e21, 5e-324, Number.MAX_SAFE_INTEGER, ''],
              [
                'žluťoučký 🐎 \u202e',
                '\u0000',
                'a\u0000b',
                '\\u0000',
                '\ud800',
                '\udc00\ud800',
                '\u2028',
                '\r\n\t',
                '\'"%s{0}',
              ],
              [{ '': 1, a: { 'b.c': [[], {}] }, '\u0000ž"': null }],
              [nested(199, (inner) => [inner])],
              [nested(199, (inner) => ({ inner }))],
              ['x'.repeat(1_000_000)],
              ['ž🐎'.repeat(250_000)],
              [`${'x'.repeat(1020)}🐎`],
            ];
            for (const args of lists) expect((await run({ name: 'echo', args })).result).toEqual([args, {}]);
          },
          patience,
        );

        it(
          'kwargs() arrive as keyword arguments, a plain object as a positional one',
          async () => {
            const resized = await run({ name: 'images.resize', args: ['/ž', kwargs({ height: 4, width: 3 })] });
            expect(resized.result).toBe('/ž: 3 x 4');
            const none = await run({ name: 'echo', args: [{ a: 1 }, kwargs({})] });
            expect(none.result).toEqual([[{ a: 1 }], {}]);
            const plain = await run({ name: 'echo', args: [{ a: 1 }] });
            expect(plain.result).toEqual([[{ a: 1 }], {}]);
            const only = await run({ name: 'echo', args: [kwargs({ 'á b': ['\ud800'] })] });
            expect(only.result).toEqual([[], { 'á b': ['\ud800'] }]);
          },
          patience,
        );

        it(
          'the worker knows what Celery tells a task of its message',
          async () => {
            const { id } = await send(engine, { name: 'request', args: [], delay: 1000.5, timeout: 9500 });
            const { result, enqueuedAt } = await over(engine, id);
            const { eta, ...rest } = result as { eta: string };
            expect(rest).toEqual({
              id,
              root_id: id,
              correlation_id: id,
              lang: 'py',
              retries: 0,
              timelimit: [9.5, 9.5],
              argsrepr: '[]',
              kwargsrepr: '{}',
              origin: expect.stringMatching(/^gen\d+@./),
            });
            expect(eta).toMatch(/T\d\d:\d\d:\d\d\.\d{3}000\+00:00$/);
            expect(Math.abs(new Date(eta).getTime() - Number(enqueuedAt) - 1001)).toBeLessThan(1000);
          },
          patience,
        );

        it(
          'headers are attributes of the request, as those of apply_async(headers=...), and never in place of Celery’s own',
          async () => {
            const reserved = { id: 'x', retries: '9', lang: 'js', get: 'x', CC: 'x', _protected: 'x' };
            const write = (trace: unknown): void => {
              Object.assign((trace as EnqueueTrace).message.headers, { traceparent: '00-a-b-01', ...reserved });
            };
            subscribe('tracing:express-background-tasks:enqueue:start', write);
            try {
              const { result, id } = await run({ name: 'headers', args: [] });
              expect(result).toEqual({ traceparent: '00-a-b-01', id, retries: 0, lang: 'py', CC: null, _protected: 1 });
            } finally {
              unsubscribe('tracing:express-background-tasks:enqueue:start', write);
            }
          },
          patience,
        );

        it(
          'a delayed task does not run before its time, not even by the fraction of a second',
          async () => {
            // Celery takes the digits after the point for a count of microseconds: three of them would be lost.
            const earliest = Math.ceil(Date.now() / 1000) * 1000 + 1900;
            const { result } = await run({ name: 'now', args: [], delay: earliest - Date.now() });
            expect(Number(result) * 1000).toBeGreaterThanOrEqual(earliest - 50); // Two clocks.
          },
          patience,
        );

        it(
          'timeout ends the task, also where the Python task has a longer soft limit of its own',
          async () => {
            const start = Date.now();
            const { state, error } = await run({ name: 'sleep', args: [30], timeout: 700 });
            expect(Date.now() - start).toBeLessThan(20_000);
            expect(state).toBe('failed');
            expect(['SoftTimeLimitExceeded', 'TimeLimitExceeded']).toContain(error?.name);
          },
          patience,
        );

        it(
          'get() tells of a failure: the class and the message of the exception',
          async () => {
            const failed = await run({ name: 'fail', args: ['the disk is full 🫠'] });
            expect(failed).toMatchObject({
              name: 'fail',
              state: 'failed',
              error: { name: 'ValueError', message: 'the disk is full 🫠' },
              finishedAt: expect.any(Date),
            });
            expect(failed).not.toHaveProperty('result');
            expect((await run({ name: 'fail', args: ['a', 1] })).error?.message).toBe('["a",1]');
            expect((await run({ name: 'fail', args: [] })).error?.message).toBe('');
          },
          patience,
        );

        it(
          'get() without the result tells the same of a task whose result is large',
          async () => {
            const { id, result, ...rest } = await run({ name: 'large', args: [1_000_000] });
            expect(result).toHaveLength(1_000_000);
            expect(await engine.get(id, { result: false })).toEqual({ id, ...rest });
          },
          patience,
        );

        it(
          'get() tells of a task that runs, and of one that waits for its retry',
          async () => {
            const running = await send(engine, { name: 'sleep', args: [2] });
            expect(await reaches(engine, running.id, ({ state }) => state === 'running')).toMatchObject({
              attempts: 1,
            });
            const retried = await send(engine, { name: 'retry', args: [] });
            const waiting = await reaches(engine, retried.id, ({ state }) => state === 'queued');
            expect(waiting).toMatchObject({ name: 'retry', attempts: 1 });
            expect(waiting).not.toHaveProperty('error');
          },
          patience,
        );

        it(
          "a task that the worker does not know has failed: so do Celery's workers",
          async () => {
            expect(await run({ name: 'no.such', args: [] })).toMatchObject({
              state: 'failed',
              error: { name: 'NotRegistered', message: 'no.such' },
            });
          },
          patience,
        );

        it(
          'works from a handler: enqueue, then taskStatus()',
          async () => {
            const app = express();
            app.use(backgroundTasks({ engine }));
            const resize = task<[path: string, options: Kwargs<{ width: number }>]>('images.resize');
            app.post('/', async (_req, res) => {
              res.json(await res.locals.backgroundTasks.enqueue(resize, '/a', kwargs({ width: 1 })));
            });
            app.get('/tasks/:id', taskStatus(engine, { result: true }));
            const { url } = await serve(app);
            const { id } = (await (await fetch(url, { method: 'POST' })).json()) as { id: string };
            await over(engine, id);
            const status = await fetch(`${url}/tasks/${id}`);
            expect(await status.json()).toMatchObject({ id, state: 'succeeded', result: '/a: 1 x None' });
          },
          patience,
        );

        it(
          'a hundred at once: each runs once',
          async () => {
            const numbers = Array.from({ length: 100 }, (_, number) => number);
            const enqueued = await Promise.all(numbers.map((number) => send(engine, { name: 'echo', args: [number] })));
            const records = await Promise.all(enqueued.map(({ id }) => over(engine, id)));
            expect(records.map(({ result }) => result)).toEqual(numbers.map((number) => [[number], {}]));
          },
          patience,
        );
      });

      describe.each(brokers)('over $name, before a worker has come', (broker) => {
        let queue: string;
        let url: string;

        beforeEach(() => {
          queue = `celery-test-${randomUUID()}`;
          url = broker.url(redis);
        });

        afterEach(() => broker.remove(queue));

        it(
          "the message has all that Celery's own client sends, and nothing else",
          async () => {
            const env = celeryAppEnvironment({ broker: url, backend, queue });
            execFileSync(python, [`${__dirname}/fixtures/celery_app.py`], { env });
            const theirs = await broker.take(url, queue);
            const engine = open({ broker: url, queue });
            const args = [1, 'ü', kwargs({ a: 2 })];
            const { id } = await send(engine, { name: 'echo', args, delay: 10_000, timeout: 5000 });
            const ours = await broker.take(url, queue);
            expect(shape(ours)).toEqual(shape(theirs));
            expect(ours.body).toEqual(theirs.body);
            expect(ours.headers).toMatchObject({ id, root_id: id, argsrepr: '[1,"ü"]', kwargsrepr: '{"a":2}' });
          },
          patience,
        );

        it('arguments are stored as they were when enqueue was called', async () => {
          const args = [{ value: 'before' }, kwargs({ key: 'before' })];
          const enqueued = send(open({ broker: url, queue }), { name: 'a', args });
          args[0] = { value: 'after' };
          args.push({ value: 'added' });
          await enqueued;
          expect((await broker.take(url, queue)).body).toEqual([
            [{ value: 'before' }],
            { key: 'before' },
            expect.anything(),
          ]);
        });

        it('an excerpt of long arguments in the headers does not end with half a character', async () => {
          await send(open({ broker: url, queue }), { name: 'a', args: [`${'x'.repeat(1021)}🐎`] });
          expect(await broker.take(url, queue)).toMatchObject({ headers: { argsrepr: `["${'x'.repeat(1021)}` } });
        });

        it(
          'a higher priority runs first, and no priority is 0',
          async () => {
            const isRedis = broker.name === 'Redis';
            const highest = isRedis ? {} : { queueArguments: { 'x-max-priority': 9 } };
            const engine = open({ broker: url, queue, backend, ...highest });
            const priorities = isRedis ? [-9, undefined, -3, 0, -6] : [undefined, 9, 0, 1, 5];
            const ids = new Map<string, number>();
            for (const priority of priorities) {
              const message = { name: 'now', args: [] };
              const { id } = await send(engine, priority === undefined ? message : { ...message, priority });
              ids.set(id, priority ?? 0);
            }
            const worker = await startCeleryWorker({
              broker: url,
              backend,
              queue,
              ...(isRedis ? {} : { priorities: 9 }),
            });
            try {
              const records = await Promise.all([...ids.keys()].map((id) => over(engine, id)));
              const order = records.sort((a, b) => Number(a.result) - Number(b.result)).map(({ id }) => ids.get(id));
              expect(order).toEqual(isRedis ? [0, 0, -3, -6, -9] : [9, 5, 1, 0, 0]);
            } finally {
              await stopCeleryWorker(worker);
            }
          },
          patience,
        );
      });
    });
  });
});

/** What of a message does not depend on who sent it and when. */
function shape({ headers, properties }: StoredMessage): object {
  const volatile = ['id', 'root_id', 'eta', 'origin', 'argsrepr', 'kwargsrepr', 'correlation_id', 'correlationId'];
  const ofClient = ['reply_to', 'replyTo', 'delivery_tag'];
  const hide = (key: string, value: unknown): unknown =>
    [...volatile, ...ofClient].includes(key) && value !== null ? typeof value : value;
  return JSON.parse(JSON.stringify({ headers, properties }, hide));
}

function over(engine: TaskEngine, id: string): Promise<TaskRecord> {
  return reaches(engine, id, ({ state }) => state === 'succeeded' || state === 'failed');
}

async function reaches(engine: TaskEngine, id: string, fits: (record: TaskRecord) => boolean): Promise<TaskRecord> {
  const end = Date.now() + patience / 2;
  for (;;) {
    const record = await engine.get(id);
    if (record !== undefined && fits(record)) return record;
    if (Date.now() > end) throw new Error(`waited in vain: ${JSON.stringify(record)}`);
    await sleep(20);
  }
}
