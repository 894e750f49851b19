// Celery's brokers fail in every way: enqueue says so in time, works again by itself, and leaves nothing behind.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { type Channel, connect } from 'amqplib';
import { Redis } from 'ioredis';
import { type CeleryOptions, celery } from '../../lib/drivers/celery/index.js';
import type { BackgroundTasksError, TaskEngine } from '../../lib/index.js';
import { OwnRabbitmq, rabbitmqServer } from './fixtures/own-rabbitmq.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { TcpProxy } from './fixtures/tcp-proxy.js';
import { describeWith } from './requirements.js';

const patience = 60_000;
/** For tests that wait several times. */
const longPatience = 180_000;
/** Within which enqueue must reject: 5 s, and half a second for a busy machine. */
const inTime = 5500;

const engines: TaskEngine[] = [];
const proxies: TcpProxy[] = [];
const escaped: unknown[] = [];
const onEscaped = (error: unknown): void => {
  escaped.push(error);
};

function open(options: CeleryOptions): TaskEngine {
  const engine = celery(options);
  engines.push(engine);
  return engine;
}

async function startProxy(port: number): Promise<TcpProxy> {
  const proxy = new TcpProxy(port);
  await proxy.start();
  proxies.push(proxy);
  return proxy;
}

beforeEach(() => {
  process.on('unhandledRejection', onEscaped);
  process.on('uncaughtException', onEscaped);
});

afterEach(async () => {
  await Promise.all(engines.splice(0).map((engine) => engine.close()));
  await Promise.all(proxies.splice(0).map((proxy) => proxy.stop()));
  await sleep(50); // What they left behind has had its time to fail.
  process.off('unhandledRejection', onEscaped);
  process.off('uncaughtException', onEscaped);
  expect(escaped.splice(0)).toEqual([]);
}, patience);

interface Broker {
  readonly name: string;
  readonly scheme: string;
  /** Where a server listens. */
  start(): Promise<number>;
  stop(): Promise<void>;
  /** The ids of the tasks in the queue. */
  stored(queue: string): Promise<string[]>;
  remove(queue: string): Promise<void>;
}

let redis: OwnServer;

const rabbitmqBroker: Broker = {
  name: 'RabbitMQ',
  scheme: 'amqp',
  start: async () => 5672,
  stop: async () => {},
  stored: (queue) => storedInRabbitmq(5672, queue),
  remove: deleteQueue,
};

const redisBroker: Broker = {
  name: 'Redis',
  scheme: 'redis',
  start: async () => {
    redis = await startRedis();
    return redis.port;
  },
  stop: () => redis.remove(),
  stored: (queue) => storedInRedis(redis.port, queue),
  remove: async () => {}, // With the server.
};

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ: outages', () => describeOutages(rabbitmqBroker));
describeWith({ program: ['redis-server', '--version'] }, 'celery over Redis: outages', () =>
  describeOutages(redisBroker),
);

function describeOutages(broker: Broker): void {
  let port: number;
  let proxy: TcpProxy;
  let queue: string;
  let engine: TaskEngine;

  const enqueue = (...args: unknown[]): Promise<{ id: string }> => send(engine, { name: 'a', args });

  beforeAll(async () => {
    port = await broker.start();
  }, patience);

  afterAll(() => broker.stop());

  beforeEach(async () => {
    proxy = await startProxy(port);
    queue = `celery-test-${randomUUID()}`;
    engine = open({ broker: `${broker.scheme}://127.0.0.1:${proxy.port}`, queue });
  });

  afterEach(() => broker.remove(queue));

  it(
    'the connection is cut while idle: the next enqueue opens another one',
    async () => {
      const { id } = await enqueue();
      for (let round = 0; round < 5; round++) {
        proxy.cut();
        await until(() => proxy.connections === 0);
        await sleep(10); // The engine has seen it, too.
        await enqueue();
        expect(proxy.connections).toBe(1);
      }
      expect(await broker.stored(queue)).toHaveLength(6);
      expect(await broker.stored(queue)).toContain(id);
    },
    longPatience,
  );

  it(
    'the connection is cut while the broker has not answered: enqueue rejects at once',
    async () => {
      await enqueue();
      proxy.hold();
      const failures = [1, 2, 3].map((number) => failure(enqueue(number)));
      await sleep(50);
      proxy.cut();
      for (const { error, took } of await Promise.all(failures)) {
        expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
        expect(took).toBeLessThan(4000);
      }
      proxy.release();
      await enqueue();
      expect(await broker.stored(queue)).toHaveLength(2);
    },
    longPatience,
  );

  it(
    'the broker falls silent: enqueue rejects in time, and the connection is given up',
    async () => {
      await enqueue();
      proxy.hold();
      const { error, took } = await failure(enqueue('x'.repeat(1_000_000)));
      expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', message: expect.stringContaining('no answer') });
      expect(took).toBeLessThan(inTime);
      const next = enqueue();
      await until(() => proxy.connections === 2); // The proxy, which reads nothing, has not seen the end of the first.
      proxy.release();
      await next;
      await until(() => proxy.connections === 1);
    },
    longPatience,
  );

  it(
    'the broker accepts connections and says nothing: enqueue rejects in time, and no connection stays',
    async () => {
      const sockets = new Set<Socket>();
      const silent = createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => sockets.delete(socket));
        socket.resume();
      });
      silent.listen(0, '127.0.0.1');
      await once(silent, 'listening');
      const { port: silentPort } = silent.address() as AddressInfo;
      try {
        const mute = open({ broker: `${broker.scheme}://127.0.0.1:${silentPort}`, queue });
        const failures = await Promise.all([1, 2].map((n) => failure(send(mute, { name: 'a', args: [n] }))));
        for (const { error, took } of failures) {
          expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
          expect(took).toBeLessThan(inTime);
        }
        await until(() => sockets.size === 0);
      } finally {
        for (const socket of sockets) socket.destroy();
        silent.close();
      }
    },
    longPatience,
  );

  it(
    'the broker is away again and again: no connection stays behind',
    async () => {
      for (let round = 0; round < 5; round++) {
        await proxy.stop();
        const failures = await Promise.all([1, 2, 3].map((number) => failure(enqueue(number))));
        for (const { error } of failures) expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
        await proxy.start();
        await Promise.all([1, 2, 3].map((number) => eventually(() => enqueue(number))));
        await until(() => proxy.connections === 1);
      }
      expect(await broker.stored(queue)).toHaveLength(15);
      await engine.close();
      await until(() => proxy.connections === 0);
    },
    longPatience,
  );

  it('many enqueues at once share one connection', async () => {
    await Promise.all(Array.from({ length: 200 }, (_, number) => enqueue(number)));
    expect(proxy.connections).toBe(1);
    expect(new Set(await broker.stored(queue)).size).toBe(200);
  });

  it('close() waits for what is being sent', async () => {
    const enqueued = enqueue();
    await engine.close();
    const { id } = await enqueued;
    expect(await broker.stored(queue)).toEqual([id]);
    expect((await failure(enqueue())).error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
  });

  it(
    'close() does not wait for a broker that says nothing',
    async () => {
      await enqueue();
      proxy.hold();
      const start = Date.now();
      await engine.close();
      expect(Date.now() - start).toBeLessThan(4000);
      proxy.release();
      await until(() => proxy.connections === 0);
    },
    longPatience,
  );

  it('refused credentials are the reason given, but not told', async () => {
    const { error } = await failure(
      send(open({ broker: `${broker.scheme}://nobody:secret@127.0.0.1:${proxy.port}`, queue }), {
        name: 'a',
        args: [],
      }),
    );
    expect(error).toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringMatching(/ACCESS.REFUSED|WRONGPASS/),
    });
    expect(error.message).not.toContain('secret');
    await until(() => proxy.connections === 0);
  });

  it.each([
    ['after a hand-over', () => proxy.port, false],
    ['after one that failed', () => 1, false],
    ['after one to a broker that has fallen silent since', () => proxy.port, true],
  ])(
    'the process can end after close(), %s',
    async (_, portOf, isSilent) => {
      const program = `
        const { celery } = require('../../lib/drivers/celery/index.ts');
        const { task } = require('../../lib/index.ts');
        const engine = celery({ broker: '${broker.scheme}://127.0.0.1:${portOf()}', queue: '${queue}' });
        process.stdin.on('end', () => engine.close()).resume();
        engine.enqueue(task('a')).catch(() => {}).then(() => console.log('asked'));`;
      const args = ['--require', `${__dirname}/fixtures/typescript.cjs`, '--eval', program];
      const child = spawn(process.execPath, args, {
        cwd: __dirname,
        timeout: patience,
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      if (isSilent) proxy.hold();
      child.stdin.end();
      expect(await once(child, 'exit')).toEqual([0, null]);
    },
    longPatience,
  );
}

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ: its queue', () => {
  const broker = 'amqp://127.0.0.1:5672';
  let queue: string;

  beforeEach(() => {
    queue = `celery-test-${randomUUID()}`;
  });

  afterEach(() => deleteQueue(queue));

  it('of other arguments is refused as an option that does not fit, and left as it is', async () => {
    await withChannel(5672, (channel) => channel.assertQueue(queue, { durable: true, maxPriority: 10 }));
    const engine = open({ broker, queue });
    for (let round = 0; round < 3; round++) {
      await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(/"queueArguments" must.*inequivalent arg 'x-max-priority'/),
      });
    }
    const fitting = open({ broker, queue, queueArguments: { 'x-max-priority': 10 } });
    const { id } = await send(fitting, { name: 'a', args: [], priority: 10 });
    expect(await storedInRabbitmq(5672, queue)).toEqual([id]);
    await withChannel(5672, (channel) => channel.deleteQueue(queue));
    await send(engine, { name: 'a', args: [] });
  });

  it('belongs to another connection alone: enqueue rejects with the reason', async () => {
    await withChannel(5672, async (channel) => {
      await channel.assertQueue(queue, { exclusive: true });
      await expect(send(open({ broker, queue }), { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('RESOURCE_LOCKED'),
      });
    });
  });

  it('is durable, and so are the messages', async () => {
    await send(open({ broker, queue }), { name: 'a', args: [] });
    await withChannel(5672, async (channel) => {
      await expect(channel.assertQueue(queue, { durable: true })).resolves.toMatchObject({ messageCount: 1 });
      expect(await channel.get(queue, { noAck: true })).toMatchObject({ properties: { deliveryMode: 2 } });
    });
  });

  it('was deleted in the meantime: it is declared again, and the message is in it', async () => {
    const engine = open({ broker, queue });
    await send(engine, { name: 'a', args: [] });
    await withChannel(5672, (channel) => channel.deleteQueue(queue));
    const enqueued = await Promise.all([1, 2, 3].map((number) => send(engine, { name: 'a', args: [number] })));
    expect((await storedInRabbitmq(5672, queue)).sort()).toEqual(enqueued.map(({ id }) => id).sort());
  });

  it('is never there when the message comes: enqueue rejects', async () => {
    const proxy = await startProxy(5672);
    proxy.latency = 100;
    const shortLived = open({
      broker: `amqp://127.0.0.1:${proxy.port}`,
      queue,
      queueArguments: { 'x-expires': 1 },
    });
    await expect(send(shortLived, { name: 'a', args: [] })).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringContaining(`there is no queue "${queue}"`),
    });
  });

  it(
    'is blocked: what was sent rejects in time, what follows at once and is not sent, until the broker reads again',
    async () => {
      const proxy = await startProxy(5672);
      const engine = open({ broker: `amqp://127.0.0.1:${proxy.port}`, queue });
      const first = await send(engine, { name: 'a', args: [] });
      proxy.hold();
      const sent = failure(send(engine, { name: 'a', args: ['sent'] }));
      proxy.inject(methodFrame(10, 60, shortString('low on memory')));
      const late = await sent;
      expect(late.error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      expect(late.took).toBeLessThan(inTime);
      for (let round = 0; round < 3; round++) {
        const { error, took } = await failure(send(engine, { name: 'a', args: ['not sent'] }));
        expect(error).toMatchObject({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: expect.stringContaining('low on memory'),
        });
        expect(took).toBeLessThan(4000);
      }
      proxy.release();
      proxy.inject(methodFrame(10, 61));
      const last = await eventually(() => send(engine, { name: 'a', args: [] }));
      const stored = await storedInRabbitmq(5672, queue);
      expect(stored).toHaveLength(3);
      expect(stored).toEqual([first.id, expect.any(String), last.id]);
    },
    longPatience,
  );
});

describeWith({ program: ['test', '-x', rabbitmqServer] }, 'celery over RabbitMQ: a node that stops', () => {
  const queue = 'celery';
  let node: OwnRabbitmq;

  beforeAll(async () => {
    node = await OwnRabbitmq.start();
  }, longPatience);

  afterAll(() => node.remove());

  it(
    'is stopped and started under load: each enqueue was stored, or rejected with the code',
    async () => {
      const load = new Load(open({ broker: `amqp://127.0.0.1:${node.port}` }));
      await load.acknowledged(100);
      await node.stop();
      await load.rejected(10);
      await node.start();
      await load.acknowledged(100);
      await load.end();
      const stored = new Set(await storedInRabbitmq(node.port, queue));
      expect(load.ids.filter((id) => !stored.has(id))).toEqual([]);
      await withChannel(node.port, (channel) => channel.purgeQueue(queue));
    },
    longPatience,
  );

  it(
    'does not let the user write: enqueue rejects with its reason, each time',
    async () => {
      await node.addUserWithoutWriting('reader', 'secret');
      const engine = open({ broker: `amqp://reader:secret@127.0.0.1:${node.port}` });
      for (let round = 0; round < 3; round++) {
        const failures = await Promise.all([1, 2].map((n) => failure(send(engine, { name: 'a', args: [n] }))));
        for (const { error } of failures) {
          expect(error).toMatchObject({
            code: 'ERR_ENGINE_UNAVAILABLE',
            message: expect.stringMatching(/403.*ACCESS_REFUSED.*amq\.default/),
          });
        }
      }
    },
    longPatience,
  );

  it.each([
    ['more than 1 MiB', 2_000_000, 3_000_000],
    ['less', 20_000, 30_000],
  ])(
    'takes no message over a limit of %s: that one is rejected with its reason, those beside it are stored',
    async (_, limit, size) => {
      await node.limitMessages(limit);
      const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
      await send(engine, { name: 'a', args: [] });
      const small = Array.from({ length: 100 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const large = failure(send(engine, { name: 'a', args: ['x'.repeat(size)] }));
      const more = Array.from({ length: 100 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const ids = (await Promise.all([...small, ...more])).map(({ id }) => id);
      expect((await large).error).toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringMatching(/406.*PRECONDITION_FAILED.*larger than/),
      });
      const stored = new Set(await storedInRabbitmq(node.port, queue));
      expect(ids.filter((id) => !stored.has(id))).toEqual([]);
      expect(stored.size).toBe(201);
      await withChannel(node.port, (channel) => channel.purgeQueue(queue));
      await node.limitMessages(134_217_728);
    },
    longPatience,
  );

  it(
    'runs out of memory: enqueue rejects in time, and works again when there is some',
    async () => {
      const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
      await send(engine, { name: 'a', args: [] });
      await node.raiseMemoryAlarm();
      // A broker that has not noticed yet still takes one.
      const { error, took } = await failure(until(() => send(engine, { name: 'a', args: [] }).then(() => false)));
      expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      expect(took).toBeLessThan(patience);
      for (let round = 0; round < 3; round++) {
        const again = await failure(send(engine, { name: 'a', args: [] }));
        expect(again.error).toMatchObject({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: expect.stringContaining('memory'),
        });
        expect(again.took).toBeLessThan(4000);
      }
      await node.clearMemoryAlarm();
      await eventually(() => send(engine, { name: 'a', args: [] }));
    },
    longPatience,
  );
});

describeWith({ program: ['redis-server', '--version'] }, 'celery over Redis: a server that stops', () => {
  let server: OwnServer;
  let broker: string;

  beforeEach(async () => {
    server = await startRedis();
    broker = `redis://127.0.0.1:${server.port}`;
  });

  afterEach(() => server.remove());

  it(
    'is killed and started under load: each enqueue was stored, or rejected with the code',
    async () => {
      const load = new Load(open({ broker }));
      for (let round = 0; round < 3; round++) {
        await load.acknowledged(100);
        await server.stop();
        await load.rejected(10);
        await server.start();
      }
      await load.acknowledged(100);
      await load.end();
      const stored = new Set(await storedInRedis(server.port, 'celery'));
      expect(load.ids.filter((id) => !stored.has(id))).toEqual([]);
    },
    longPatience,
  );

  it('has become a replica, which takes no writes: enqueue rejects with its reason, until it is none', async () => {
    const engine = open({ broker });
    await send(engine, { name: 'a', args: [] });
    const admin = new Redis(broker);
    await admin.replicaof('127.0.0.1', 1);
    await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringContaining('READONLY'),
    });
    await admin.replicaof('NO', 'ONE');
    await send(engine, { name: 'a', args: [] });
    admin.disconnect();
  });

  it(
    'has become a replica, and another server is the master at its address: the engine connects anew by itself',
    async () => {
      const master = await startRedis();
      const proxy = await startProxy(server.port);
      const address = `redis://127.0.0.1:${proxy.port}`;
      const engine = open({ broker: address });
      await send(engine, { name: 'a', args: [] });
      proxy.redirect(master.port);
      const admin = new Redis(broker);
      await admin.replicaof('127.0.0.1', master.port);
      const start = Date.now();
      const { id } = await eventually(() => send(engine, { name: 'a', args: [] }));
      expect(Date.now() - start).toBeLessThan(5000);
      expect(await storedInRedis(master.port, 'celery')).toContain(id);
      await until(() => proxy.connections === 1);
      admin.disconnect();
      await master.remove();
    },
    longPatience,
  );

  it(
    'get() rejects in time, and works again by itself',
    async () => {
      const engine = open({ broker, resultBackend: broker });
      const { id } = await send(engine, { name: 'a', args: [] });
      expect(await engine.get(id)).toBeUndefined();
      server.freeze();
      const frozen = await failure(engine.get(id));
      expect(frozen.error).toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        status: 503,
        message: 'celery: the task could not be read: no answer within 4500 ms',
      });
      expect(frozen.took).toBeLessThan(inTime);
      server.thaw();
      expect(await engine.get(id)).toBeUndefined();
      await server.stop();
      expect((await failure(engine.get(id))).error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      await server.start();
      expect(await eventually(() => engine.get(id))).toBeUndefined();
      await engine.close();
      expect((await failure(engine.get(id))).error.message).toBe(
        'celery: the task could not be read: the engine is closed',
      );
    },
    longPatience,
  );
});

/** Four callers that enqueue one task after the other. */
class Load {
  readonly ids: string[] = [];
  #rejections = 0;
  #isOver = false;
  readonly #callers: Promise<void>[];

  constructor(engine: TaskEngine) {
    this.#callers = [1, 2, 3, 4].map((caller) => this.#run(engine, caller));
  }

  async acknowledged(more: number): Promise<void> {
    const enough = this.ids.length + more;
    await this.#reaches(() => this.ids.length >= enough);
  }

  async rejected(more: number): Promise<void> {
    const enough = this.#rejections + more;
    await this.#reaches(() => this.#rejections >= enough);
  }

  async end(): Promise<void> {
    this.#isOver = true;
    await Promise.all(this.#callers);
  }

  /** A caller that has ended by an error ends the wait with it. */
  async #reaches(isReached: () => boolean): Promise<void> {
    await Promise.race([until(isReached), Promise.all(this.#callers)]);
  }

  async #run(engine: TaskEngine, caller: number): Promise<void> {
    while (!this.#isOver) {
      try {
        this.ids.push((await send(engine, { name: 'a', args: [caller] })).id);
      } catch (error) {
        expect(error).toMatchObject({ name: 'BackgroundTasksError', code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
        this.#rejections++;
        await sleep(5);
      }
    }
  }
}

async function storedInRedis(port: number, queue: string): Promise<string[]> {
  const client = new Redis(port, '127.0.0.1');
  const envelopes = await client.lrange(queue, 0, -1);
  client.disconnect();
  return envelopes.map((envelope) => JSON.parse(envelope).headers.id);
}

/** They go back to the queue when the connection is closed. */
async function storedInRabbitmq(port: number, queue: string): Promise<string[]> {
  return withChannel(port, async (channel) => {
    const ids: string[] = [];
    for (;;) {
      const message = await channel.get(queue);
      if (message === false) break;
      const { id } = message.properties.headers ?? {};
      ids.push(id);
    }
    return ids;
  });
}

async function deleteQueue(queue: string): Promise<void> {
  await withChannel(5672, (channel) => channel.deleteQueue(queue));
}

async function withChannel<T>(port: number, use: (channel: Channel) => Promise<T>): Promise<T> {
  const connection = await connect(`amqp://127.0.0.1:${port}`);
  try {
    return await use(await connection.createChannel());
  } finally {
    await connection.close();
  }
}

/** What a broker sends of its own accord. */
function methodFrame(classId: number, methodId: number, args: Buffer = Buffer.alloc(0)): Buffer {
  const header = Buffer.alloc(7);
  header.writeUInt8(1, 0);
  header.writeUInt32BE(4 + args.length, 3);
  const method = Buffer.alloc(4);
  method.writeUInt16BE(classId, 0);
  method.writeUInt16BE(methodId, 2);
  return Buffer.concat([header, method, args, Buffer.from([0xce])]);
}

function shortString(text: string): Buffer {
  return Buffer.concat([Buffer.from([text.length]), Buffer.from(text)]);
}

async function failure(promise: Promise<unknown>): Promise<{ error: BackgroundTasksError; took: number }> {
  const start = Date.now();
  try {
    await promise;
  } catch (error) {
    return { error: error as BackgroundTasksError, took: Date.now() - start };
  }
  throw new Error('it resolved');
}

async function until(isTrue: () => boolean | Promise<boolean>): Promise<void> {
  const end = Date.now() + patience;
  while (!(await isTrue())) {
    if (Date.now() > end) throw new Error('waited in vain');
    await sleep(10);
  }
}

async function eventually<T>(call: () => Promise<T>): Promise<T> {
  const end = Date.now() + patience;
  for (;;) {
    try {
      return await call();
    } catch (error) {
      if (Date.now() > end) throw error;
      await sleep(50);
    }
  }
}
