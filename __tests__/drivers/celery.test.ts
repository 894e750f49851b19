// The hand-over to Celery: options, and what is refused before anything is sent.

import { randomUUID } from 'node:crypto';
import { cpSync, mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { inspect } from 'node:util';
import { runInNewContext } from 'node:vm';
import express from 'express';
import { type CeleryOptions, celery, type Kwargs, kwargs } from '../../lib/drivers/celery/index.js';
import { type BackgroundTasksError, backgroundTasks, type Task, type TaskEngine, task } from '../../lib/index.js';
import { serve } from '../fixtures/serve.js';
import { nested, rabbitmq } from './fixtures/celery.js';
import { type Sent, send } from './fixtures/send.js';
import { closing } from './fixtures/watched.js';

function open(options: CeleryOptions): TaskEngine {
  return closing(celery(options));
}

describe('celery(): options', () => {
  const refused: [string, unknown, string][] = [
    ['no options', undefined, 'the options must be an object'],
    ['no broker', {}, '"broker" must be a URL (amqp://, amqps://, redis://, rediss://); there is none'],
    ['a broker without a scheme', { broker: 'localhost' }, 'this is not one'],
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
      '"queueArguments" must be a plain object',
    ],
    ['queue arguments over Redis', { broker: 'redis://localhost', queueArguments: {} }, 'a queue in Redis has none'],
    ['a result backend that is not Redis', { broker: rabbitmq, backend: 'rpc://' }, '(redis://, rediss://); it is rpc'],
    [
      'a database that is no number',
      { broker: 'redis://localhost/virtual' },
      '"broker" must have a number as its database',
    ],
    [
      'such a database in the query',
      { broker: 'rediss://localhost?db=a' },
      '"broker" must have a number as its database',
    ],
    [
      'such a database of the results',
      { broker: rabbitmq, backend: 'redis://localhost/1x' },
      '"backend" must have a number as its database',
    ],
    [
      'two result backends',
      { broker: rabbitmq, backend: 'redis://localhost/1', resultBackend: 'redis://localhost/2' },
      'it is the old name of "backend", which says something else',
    ],
    ['a URL without an authority', { broker: 'amqp:localhost' }, '"broker" must be a URL'],
    ['a port that there cannot be', { broker: 'redis://localhost:65536' }, '"broker" must be a URL'],
    ['a list of brokers', { broker: 'amqp://a;amqp://b' }, '"broker" must name one server'],
    ['a list of hosts', { broker: 'redis://a,b' }, '"broker" must name one server'],
    [
      'a password that is badly encoded',
      { broker: 'redis://:100%@localhost' },
      '"broker" has a "%" that begins no percent-encoding',
    ],
    [
      'a virtual host that is badly encoded',
      { broker: 'amqp://localhost/100%25%' },
      '"broker" has a "%" that begins no percent-encoding',
    ],
    [
      'a virtual host that is too long',
      { broker: `amqp://localhost/${'%C5%BE'.repeat(128)}` },
      '"broker" must have a virtual host of at most 255 bytes',
    ],
    ...['heartbeat=1m', 'heartbeat=65536', 'heartbeat=-1', 'channelMax=', 'frameMax=4095'].map(
      (query): [string, unknown, string] => [
        `amqplib's ${query}`,
        { broker: `amqp://localhost?${query}` },
        `as its "${query.split('=')[0]}"`,
      ],
    ),
    ...['unacked', 'unacked_index', 'unacked_mutex', '_kombu.binding.celery'].map(
      (queue): [string, unknown, string] => [
        `kombu's own key ${queue} as a queue in Redis`,
        { broker: 'redis://localhost', queue },
        '"queue" must be another name: Celery uses this one itself',
      ],
    ),
    ...[rabbitmq, 'redis://localhost'].map((broker): [string, unknown, string] => [
      `half a surrogate pair in the name of a queue of ${broker}`,
      { broker, queue: 'a\ud800' },
      '"queue" must be without half a surrogate pair',
    ]),
    ...[[1], new Map(), { x: () => 1 }, { x: 1n }, { x: null }, { x: Number.NaN }, { x: [1] }].map(
      (queueArguments): [string, unknown, string] => [
        `the queue arguments ${inspect(queueArguments)}`,
        { broker: rabbitmq, queueArguments },
        '"queueArguments" must be a plain object of strings, numbers and booleans',
      ],
    ),
    ['an unknown option', { broker: rabbitmq, exchange: 'x' }, 'unknown option "exchange"'],
  ];
  it.each(refused)('refuses %s', (_, options, message) => {
    expect(() => celery(options as CeleryOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
    );
  });

  it.each([
    'redis://localhost',
    'redis://localhost/',
    'redis://localhost/15',
    'redis://:100%25@localhost',
    'amqp://localhost/virtual',
    'amqp://localhost//',
    'amqp://ad%C3%A0:p%40ss@localhost/%2F?heartbeat=0&frameMax=4096',
  ])('takes %s', (broker) => {
    expect(() => celery({ broker })).not.toThrow();
  });

  it('takes queue arguments that are strings, numbers, booleans or undefined, and copies them', async () => {
    const queueArguments: Record<string, unknown> = { 'x-max-priority': 5, a: 'b', c: true, d: undefined };
    const engine = open({ broker: 'amqp://127.0.0.1:1', queueArguments });
    queueArguments['x-max-priority'] = 1;
    await expect(send(engine, { name: 'a', args: [], priority: 5 })).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
    });
  });

  it.each([
    'sqs://key:secret@host',
    'redis://:secret@host/secret',
    'redis://:secret%@host',
    'redis://secret:secret@a,b',
    'amqp://:secret@host?heartbeat=secret',
  ])('shows nothing of the bad URL %s', (broker) => {
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
    ['a priority', { priority: 1 }, '"priority" is not possible'],
    ['a name that RabbitMQ could not carry', { name: 'x'.repeat(2001) }, '"name" is not possible: it must be at most'],
    ['a name that is no text', { name: 'a\ud800' }, '"name" is not possible: it has half a surrogate pair'],
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
      message: `celery: "priority" is not possible: RabbitMQ takes 0 to 10, the "x-max-priority" in "queueArguments", not ${priority}`,
    });
  });

  it.each([3, -1, -4, -12])('Redis: priority %p, which is none of kombu', async (priority) => {
    await expect(send(open({ broker: nowhere.redis }), { name: 'a', args: [], priority })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: `celery: "priority" is not possible: Redis takes 0, -3, -6 and -9, not ${priority}`,
    });
  });

  it('work(), since the workers run in Python', async () => {
    await expect(open({ broker: nowhere.amqp }).work([] as Task[])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('run in Python'),
    });
  });

  it('ready() where no broker or no result backend answers', async () => {
    for (const options of [{ broker: nowhere.amqp }, { broker: nowhere.redis }]) {
      await expect(open(options).ready()).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    }
  });

  it('get() without a result backend', async () => {
    await expect(open({ broker: nowhere.amqp }).get(randomUUID())).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('backend'),
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
