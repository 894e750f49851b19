// The hand-over to Celery over a Redis that fails.

import { Redis } from 'ioredis';
import { newId } from '../../lib/engine/id.js';
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
      const engine = open({ broker, backend: broker });
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

  it('does not have the database: the option is at fault, and nothing is stored in another one', async () => {
    const backend = `redis://127.0.0.1:${server.port}/16`;
    for (let round = 0; round < 2; round++) {
      await expect(send(open({ broker: backend }), { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: 'celery: Redis refuses the database in "broker": ERR DB index is out of range',
      });
      const refused = {
        code: 'ERR_INVALID_OPTION',
        message: 'celery: Redis refuses the database in "backend": ERR DB index is out of range',
      };
      await expect(open({ broker, backend }).get(newId())).rejects.toMatchObject(refused);
      await expect(open({ broker, resultBackend: backend }).ready()).rejects.toMatchObject(refused); // The old name.
    }
    expect(await storedInRedis(server.port, 'celery')).toEqual([]);
  });

  it('has something else under the name of the queue: the option is at fault', async () => {
    const admin = new Redis(broker);
    await admin.set('taken', 'text');
    await expect(send(open({ broker, queue: 'taken' }), { name: 'a', args: [] })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('celery: "queue" names a key of another kind in this database: WRONGTYPE'),
    });
    admin.disconnect();
  });

  it('lets the user in later, or to the database: the engine connects anew, with a password of any letters', async () => {
    const admin = new Redis(broker);
    const engine = open({ broker: `redis://ad%C3%A0:p%40%C3%9F%25@127.0.0.1:${server.port}/1` });
    const rejects = async (reason: string): Promise<void> => {
      for (let round = 0; round < 2; round++) {
        await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: expect.stringContaining(reason),
        });
      }
    };
    await rejects('WRONGPASS');
    await admin.acl('SETUSER', 'adà', 'on', '>p@ß%', '~*', '+@all', '-select');
    await rejects('NOPERM');
    await admin.acl('SETUSER', 'adà', '+select');
    await send(engine, { name: 'a', args: [] });
    admin.disconnect();
  });
});
