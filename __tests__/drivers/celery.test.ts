// The hand-over to Celery: what is refused, what a real Celery worker makes of the messages, what get() tells of its results.

import { execFileSync } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { runInNewContext } from 'node:vm';
import { connect } from 'amqplib';
import express from 'express';
import { Redis } from 'ioredis';
import { type CeleryOptions, celery, type Kwargs, kwargs } from '../../lib/drivers/celery/index.js';
import {
  type BackgroundTasksError,
  backgroundTasks,
  type Task,
  type TaskEngine,
  type TaskRecord,
  task,
  taskStatus,
} from '../../lib/index.js';
import { serve } from '../fixtures/serve.js';
import { describeConformance, type FragileStore } from './conformance.js';
import { celeryAppEnvironment, python, startCeleryWorker, stopCeleryWorker } from './fixtures/celery-worker.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { type Sent, send } from './fixtures/send.js';
import { TcpProxy } from './fixtures/tcp-proxy.js';
import { describeWith } from './requirements.js';

const rabbitmq = 'amqp://guest:guest@127.0.0.1:5672';
const patience = 120_000;

const engines: TaskEngine[] = [];

function open(options: CeleryOptions): TaskEngine {
  const engine = celery(options);
  engines.push(engine);
  return engine;
}

afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close()));
});

describe('celery(): options', () => {
  const refused: [string, unknown, string][] = [
    ['no options', undefined, 'the options must be an object'],
    ['no broker', {}, '"broker" must be a URL (amqp://, amqps://, redis://, rediss://); there is none'],
    ['a broker without a scheme', { broker: 'localhost' }, 'there is none'],
    ['a broker of another kind', { broker: 'sqs://key:secret@host' }, 'it is sqs://'],
    ['a broker that is no text', { broker: 1 }, '"broker" must be a string'],
    [
      'a name of a queue that is longer than 255 bytes',
      { broker: rabbitmq, queue: 'ž'.repeat(128) },
      '"queue" must be at most 255 bytes long',
    ],
    [
      'the name of a queue that RabbitMQ keeps for itself',
      { broker: rabbitmq, queue: 'amq.tasks' },
      '"queue" must be without the prefix "amq."',
    ],
    ['a line break in the name of a queue', { broker: rabbitmq, queue: 'a\nb' }, '"queue" must be without line breaks'],
    ['an empty queue', { broker: rabbitmq, queue: '' }, '"queue" must be a string that is not empty'],
    [
      'queue arguments that are no object',
      { broker: rabbitmq, queueArguments: 1 },
      '"queueArguments" must be an object',
    ],
    ['queue arguments over Redis', { broker: 'redis://localhost', queueArguments: {} }, 'a queue in Redis has none'],
    [
      'a result backend that is not Redis',
      { broker: rabbitmq, resultBackend: 'rpc://' },
      '(redis://, rediss://); it is rpc',
    ],
    [
      'a database that is no number',
      { broker: 'redis://localhost/virtual' },
      'the database in "broker" must be a number',
    ],
    [
      'such a database in the query',
      { broker: 'rediss://localhost?db=a' },
      'the database in "broker" must be a number',
    ],
    [
      'such a database of the results',
      { broker: rabbitmq, resultBackend: 'redis://localhost/1x' },
      'the database in "resultBackend" must be a number',
    ],
    ['an unknown option', { broker: rabbitmq, exchange: 'x' }, 'unknown option "exchange"'],
  ];
  it.each(refused)('refuses %s', (_, options, message) => {
    expect(() => celery(options as CeleryOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
    );
  });

  it.each(['redis://localhost', 'redis://localhost/', 'redis://localhost/15', 'amqp://localhost/virtual'])(
    'takes %s',
    (broker) => {
      expect(() => celery({ broker })).not.toThrow();
    },
  );

  it.each(['sqs://key:secret@host', 'redis://:secret@host/secret'])('shows nothing of the bad URL %s', (broker) => {
    expect(() => celery({ broker })).toThrow(
      expect.not.objectContaining({ message: expect.stringContaining('secret') }),
    );
  });

  it.each([
    ['amqplib', rabbitmq, 'redis://localhost'],
    ['ioredis', 'redis://localhost', rabbitmq],
  ])('without the package %s its broker is refused, and the other one works', (name, broker, other) => {
    jest.isolateModules(() => {
      jest.doMock(name, () => {
        throw new Error(`Cannot find module '${name}'`);
      });
      const isolated: typeof import('../../lib/drivers/celery/index.js') = require('../../lib/drivers/celery/index.js');
      expect(() => isolated.celery({ broker })).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_OPTION',
          message: expect.stringContaining(`npm install ${name}`),
          cause: expect.objectContaining({ message: `Cannot find module '${name}'` }),
        }),
      );
      expect(() => isolated.celery({ broker: other })).not.toThrow();
    });
    jest.dontMock(name);
  });

  it('can be bundled where neither package is installed', () => {
    const directory = mkdtempSync(join(tmpdir(), 'celery-bundle-'));
    cpSync(join(__dirname, '../../lib'), directory, { recursive: true });
    const { buildSync }: Bundler = require(require.resolve('esbuild', { paths: [require.resolve('tsx')] }));
    const bundle = (): unknown =>
      buildSync({
        entryPoints: [join(directory, 'drivers/celery/index.ts')],
        external: ['on-finished'],
        bundle: true,
        platform: 'node',
        write: false,
        logLevel: 'silent',
      });
    expect(bundle).not.toThrow();
    rmSync(directory, { recursive: true });
  });
});

interface Bundler {
  buildSync(options: object): unknown;
}

describe('celery(): what it cannot do is refused before anything is sent', () => {
  const backoff = { limit: 1, minDelay: 1, maxDelay: 1, factor: 1, jitter: false };
  const nowhere = { amqp: 'amqp://127.0.0.1:1', redis: 'redis://127.0.0.1:1' };
  const refused: [string, Partial<Sent>, string][] = [
    ['retries', { retries: backoff }, 'autoretry_for'],
    ['key', { key: 'k' }, 'idempotent'],
    ['a delay beyond the years of Python', { delay: 8000 * 365.25 * 86_400_000 }, '"delay" is not possible'],
    ['a delay beyond the years of JavaScript', { delay: Number.MAX_SAFE_INTEGER }, '"delay" is not possible'],
    ['a priority', { priority: 1 }, '"priority" is not possible'],
  ];
  for (const [scheme, broker] of Object.entries(nowhere)) {
    it.each(refused)(`${scheme}: %s`, async (_, option, message) => {
      await expect(send(open({ broker }), { name: 'a', args: [], ...option })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(message),
      });
    });
  }

  it.each([-1, 11, 256])('RabbitMQ: priority %p, with 10 as x-max-priority', async (priority) => {
    const engine = open({ broker: nowhere.amqp, queueArguments: { 'x-max-priority': 10 } });
    await expect(send(engine, { name: 'a', args: [], priority })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: `celery: "priority" is not possible: RabbitMQ has it from 0 to the queue's "x-max-priority", which is 10 in "queueArguments", and the task asks for ${priority}`,
    });
  });

  it.each([3, -1, -4, -12])('Redis: priority %p, which is none of kombu', async (priority) => {
    await expect(send(open({ broker: nowhere.redis }), { name: 'a', args: [], priority })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: `celery: "priority" is not possible: over Redis there are 0, -3, -6 and -9, not ${priority}`,
    });
  });

  it('work(), since the workers run in Python', async () => {
    await expect(open({ broker: nowhere.amqp }).work([] as Task[])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('run in Python'),
    });
  });

  it('get() without a result backend', async () => {
    await expect(open({ broker: nowhere.amqp }).get(randomUUID())).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('resultBackend'),
    });
  });

  it('kwargs() before the last argument', async () => {
    const args = [kwargs({ a: 1 }), kwargs({ b: 1 })];
    await expect(send(open({ broker: nowhere.amqp }), { name: 'a', args })).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: 'task "a": args[0] is or holds kwargs(), which only the last argument can be',
    });
  });

  it.each([
    ['an object', [{ inner: kwargs({ a: 1 }) }], 0],
    ['an array', [1, [[kwargs({ a: 1 })]]], 1],
    ['keyword arguments', ['/a', kwargs({ inner: kwargs({ a: 1 }) })], 1],
  ])('kwargs() inside of %s', async (_, args, index) => {
    await expect(send(open({ broker: nowhere.amqp }), { name: 'a', args })).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: `task "a": args[${index}] is or holds kwargs(), which only the last argument can be`,
    });
  });

  it.each([
    ['arrays', (inner: unknown) => [inner]],
    ['objects', (inner: unknown) => ({ inner })],
    ['keyword arguments', (inner: unknown) => kwargs({ inner })],
  ])('arguments nested so deep that they would kill the worker: %s', async (_, wrap) => {
    await expect(send(open({ broker: nowhere.amqp }), { name: 'a', args: [nested(201, wrap)] })).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: expect.stringContaining('200 levels'),
    });
  });

  it('retries from backgroundTasks(), which the message tells; a task with retries: 0 passes', async () => {
    const errors: BackgroundTasksError[] = [];
    const app = express();
    app.use(backgroundTasks({ engine: open({ broker: nowhere.redis }), retries: 2 }));
    app.post('/', async (_req, res) => {
      for (const remote of [task<[number]>('a'), task<[number]>('a', { retries: 0 })]) {
        await res.locals.backgroundTasks.enqueue(remote, 1).catch((error) => errors.push(error));
      }
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url, { method: 'POST' });
    expect(errors.map(({ code }) => code)).toEqual(['ERR_INVALID_OPTION', 'ERR_ENGINE_UNAVAILABLE']);
    expect(errors[0]?.message).toContain('backgroundTasks(), give the task { retries: 0 }');
  });
});

describe('kwargs()', () => {
  it('copies, so that the object itself stays an argument like others', () => {
    const values = { width: 1 };
    expect(kwargs(values)).toEqual(values);
    expect(kwargs(values)).not.toBe(values);
  });

  it.each([
    ['an array', [1, 2]],
    ['a string', 'ab'],
    ['null', null],
    ['a class instance', new Date()],
    ['a function', open],
  ])('refuses %s', (_, values) => {
    expect(() => kwargs(values as object)).toThrow(expect.objectContaining({ code: 'ERR_TASK_NOT_SERIALIZABLE' }));
  });

  it('takes a plain object of any realm, also one without a prototype', () => {
    expect(kwargs(runInNewContext('({ width: 1 })'))).toEqual({ width: 1 });
    expect(kwargs(Object.assign(Object.create(null), { width: 1 }))).toEqual({ width: 1 });
  });

  it('is told from a plain object by its type', () => {
    const resize = task<[path: string, options: Kwargs<{ width: number; height?: number }>]>('images.resize');
    const calls = (app: ReturnType<typeof express>): void => {
      app.post('/', (_req, res) => {
        void res.locals.backgroundTasks.enqueue(resize, '/a', kwargs({ width: 1 }));
        // @ts-expect-error: these would arrive as a second positional argument.
        void res.locals.backgroundTasks.enqueue(resize, '/a', { width: 1 });
        // @ts-expect-error: not a number.
        void res.locals.backgroundTasks.enqueue(resize, '/a', kwargs({ width: '1' }));
      });
    };
    expect(calls).toBeInstanceOf(Function);
  });
});

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
          engine = open({ broker: broker.url(redis), queue, resultBackend: backend });
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
            const engine = open({ broker: url, queue, resultBackend: backend, ...highest });
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

const lacks = ['work', 'get', 'retries', 'priority', 'key'] as const;

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ', () => {
  describeConformance('celery over RabbitMQ', {
    module: `${__dirname}/fixtures/celery.ts`,
    lacks,
    createStore,
    createFragileStore: createStore,
  });

  async function createStore(): Promise<FragileStore> {
    const proxy = new TcpProxy(5672);
    await proxy.start();
    const queue = `celery-test-${randomUUID()}`;
    return {
      config: { broker: `amqp://127.0.0.1:${proxy.port}`, queue },
      stop: () => proxy.stop(),
      start: () => proxy.start(),
      remove: async () => {
        await proxy.stop();
        await deleteQueue(queue);
      },
    };
  }
});

describeWith({ program: ['redis-server', '--version'] }, 'celery over Redis', () => {
  describeConformance('celery over Redis', {
    module: `${__dirname}/fixtures/celery.ts`,
    lacks,
    createStore,
    createFragileStore: createStore,
  });

  async function createStore(): Promise<FragileStore> {
    const server = await startRedis();
    return {
      config: { broker: `redis://127.0.0.1:${server.port}` },
      stop: () => server.stop(),
      start: () => server.start(),
      remove: () => server.remove(),
    };
  }
});

describeWith({ program: ['redis-server', '--version'] }, 'celery: get()', () => {
  let redis: OwnServer;
  let client: Redis;
  let engine: TaskEngine;
  let id: string;

  beforeAll(async () => {
    redis = await startRedis();
    client = new Redis(redis.port, '127.0.0.1');
  }, patience);

  afterAll(async () => {
    client.disconnect();
    await redis.remove();
  });

  beforeEach(async () => {
    const url = `redis://127.0.0.1:${redis.port}`;
    engine = open({ broker: url, resultBackend: url });
    ({ id } = await send(engine, { name: 'a', args: [] }));
  });

  const keep = (meta: unknown): Promise<unknown> =>
    client.set(`celery-task-meta-${id}`, typeof meta === 'string' ? meta : JSON.stringify(meta));

  it('undefined until a worker has begun: Celery knows nothing of a task that waits', async () => {
    expect(await engine.get(id)).toBeUndefined();
  });

  it('undefined for an id that enqueue did not give, whatever is kept under it', async () => {
    for (const other of [randomUUID(), '', 'x', `${id}0`, '../a', '\ud800', 'x'.repeat(10_000)]) {
      await client.set(`celery-task-meta-${other}`, JSON.stringify({ status: 'SUCCESS', result: 'secret' }));
      expect(await engine.get(other)).toBeUndefined();
    }
  });

  it('finds an id in upper case', async () => {
    await keep({ status: 'SUCCESS' });
    expect(await engine.get(id.toUpperCase())).toEqual({ ...(await engine.get(id)), id });
  });

  it.each([
    ['PENDING', 'queued'],
    ['RECEIVED', 'queued'],
    ['STARTED', 'running'],
    ['PROGRESS', 'running'],
    ['RETRY', 'queued'],
    ['SUCCESS', 'succeeded'],
    ['FAILURE', 'failed'],
    ['REVOKED', 'failed'],
  ])('%s is %s', async (status, state) => {
    await keep({ status });
    expect(await engine.get(id)).toMatchObject({ id, state });
  });

  it('without result_extended there is no name, and the attempts are one', async () => {
    await keep({ status: 'STARTED', result: { pid: 1 }, date_done: null });
    expect(await engine.get(id)).toEqual({ id, name: '', state: 'running', attempts: 1, enqueuedAt: expect.any(Date) });
  });

  it('with result_extended there are both', async () => {
    await keep({ status: 'SUCCESS', result: null, name: 'images.resize', retries: 2 });
    expect(await engine.get(id)).toMatchObject({ name: 'images.resize', attempts: 3, result: null });
  });

  it.each([
    ['2026-01-02T03:04:05.678901', '2026-01-02T03:04:05.678Z'],
    ['2026-01-02T03:04:05.678901+00:00', '2026-01-02T03:04:05.678Z'],
    ['2026-01-02T03:04:05Z', '2026-01-02T03:04:05.000Z'],
    ['2026-01-02T03:04:05+02:00', '2026-01-02T01:04:05.000Z'],
  ])('date_done %s is UTC unless it says otherwise', async (date, expected) => {
    await keep({ status: 'SUCCESS', date_done: date });
    expect((await engine.get(id))?.finishedAt?.toISOString()).toBe(expected);
  });

  it.each([
    ['no exception', null, { name: 'Error', message: '' }],
    [
      'a revoked task',
      { exc_type: 'TaskRevokedError', exc_message: ['revoked'] },
      { name: 'TaskRevokedError', message: 'revoked' },
    ],
    ['a message that is no list', { exc_type: 'E', exc_message: 'text' }, { name: 'E', message: 'text' }],
    ['an argument that is no text', { exc_type: 'E', exc_message: [{ a: 1 }] }, { name: 'E', message: '{"a":1}' }],
  ])('the error of %s', async (_, result, error) => {
    await keep({ status: 'FAILURE', result });
    expect((await engine.get(id))?.error).toEqual(error);
  });

  it.each(['\u0080\u0004pickle', '{"status": "SUCCESS", "result": NaN}'])(
    'rejects for what is not JSON: %j',
    async (meta) => {
      await keep(meta);
      await expect(engine.get(id)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('result_serializer'),
      });
    },
  );

  it('JSON of another shape is a task that runs', async () => {
    await keep('null');
    expect(await engine.get(id)).toMatchObject({ state: 'running', name: '', attempts: 1 });
  });
});

async function deleteQueue(queue: string): Promise<void> {
  const connection = await connect(rabbitmq);
  const channel = await connection.createChannel();
  await channel.deleteQueue(queue);
  await channel.deleteExchange(queue);
  await connection.close();
}

function nested(levels: number, wrap: (inner: unknown) => unknown): unknown {
  let value: unknown = 'bottom';
  for (let level = 0; level < levels; level++) value = wrap(value);
  return value;
}

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
