// The hand-over to Celery over a Redis that fails.

import { Redis } from 'ioredis';
import { describeOutages } from './celery-outages.js';
import {
  eventually,
  failure,
  inTime,
  Load,
  longPatience,
  open,
  startProxy,
  storedInRedis,
  until,
} from './fixtures/celery-broker.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

let redis: OwnServer;

describeWith({ program: ['redis-server', '--version'] }, 'celery over Redis: outages', () => {
  describeOutages({
    name: 'Redis',
    scheme: 'redis',
    start: async () => {
      redis = await startRedis();
      return redis.port;
    },
    stop: () => redis.remove(),
    stored: (queue) => storedInRedis(redis.port, queue),
    remove: async () => {}, // With the server.
  });
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
