// The BullMQ engine and a Redis that answers, but not as it should.

import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { bullmq } from '../../lib/drivers/bullmq/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { refusals, unavailable } from './fixtures/bullmq.js';
import { type OwnServer, ownRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { TcpProxy } from './fixtures/tcp-proxy.js';
import { closing, eventually, failure, Notes, over, retries, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, what Redis refuses', () => {
  let redis: OwnServer;
  let admin: Redis;

  beforeEach(async () => {
    redis = await ownRedis();
    await redis.start();
    admin = new Redis(redis.port);
  });

  afterEach(async () => {
    admin.disconnect();
    await redis.remove();
  });

  function engineOf(options: { db?: number; username?: string; password?: string }): TaskEngine {
    return closing(bullmq({ connection: { host: '127.0.0.1', port: redis.port, ...options } }));
  }

  test('a database, from the start: enqueue, get and work say why, and nothing reaches database 0', async () => {
    const production = engineOf({ db: 0 });
    const runs = new Notes<unknown>();
    await production.work([task('a', runs.note)]);
    for (const error of await refusals(engineOf({ db: 16 }))) {
      expect(error).toMatchObject(unavailable('DB index is out of range'));
    }
    await send(production, { name: 'a', args: ['production'] });
    expect(await runs.first(1)).toEqual(['production']);
    await production.close();
  }, 60_000);

  test('a database, since the user may not select one', async () => {
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', '-select');
    const app = { username: 'app', password: 'secret' };
    for (const error of await refusals(engineOf({ ...app, db: 1 }))) {
      expect(error).toMatchObject(unavailable("'select'"));
    }
    const { id } = await send(engineOf({ ...app, db: 0 }), { name: 'a', args: [] });
    expect(await engineOf({ db: 0 }).get(id)).toMatchObject({ id });
  }, 60_000);

  test('nothing to a user who may do nothing dangerous, in the keys of the queue alone', async () => {
    const keys = '~bull:express-background-tasks:*';
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', keys, 'resetchannels', '+@all', '-@dangerous');
    const warned = jest.spyOn(console, 'warn').mockReturnValue();
    const engine = engineOf({ username: 'app', password: 'secret' });
    const runs = new Notes<unknown>();
    const failsFirst = task('a', (value: string) => {
      runs.note(value);
      if (runs.all.length === 1) throw new Error('not yet');
    });
    await engine.work([failsFirst], { concurrency: 1 });
    const { id } = await send(engine, { name: 'a', args: ['now'], retries: retries(1) });
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2 });
    await send(engine, { name: 'a', args: ['later'], delay: 100, key: 'k', priority: 1 });
    expect(await runs.first(3)).toEqual(['now', 'now', 'later']);
    await send(engine, { name: 'unknown', args: [] });
    await engine.close();
    expect(warned).not.toHaveBeenCalled();
    warned.mockRestore();
  }, 60_000);

  test('a database, later: nothing is enqueued or taken until it is allowed again, and then all goes on by itself', async () => {
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all');
    const engine = engineOf({ username: 'app', password: 'secret', db: 1 });
    const runs = new Notes<unknown>();
    await engine.work([task('a', runs.note)], { logger: { error: () => {} } });
    await send(engine, { name: 'a', args: ['before'] });
    await runs.first(1);
    await admin.call('ACL', 'SETUSER', 'app', '-select');
    await admin.call('CLIENT', 'KILL', 'USER', 'app');
    await eventually(async () => {
      expect(await failure(send(engine, { name: 'a', args: [] }))).toMatchObject(unavailable("'select'"));
    });
    await send(engineOf({ db: 0 }), { name: 'a', args: ['somebody else'] });
    await sleep(1000);
    await admin.call('ACL', 'SETUSER', 'app', '+select');
    await eventually(() => send(engine, { name: 'a', args: ['after'] }));
    expect(await runs.first(2)).toEqual(['before', 'after']);
    await engine.close();
  }, 60_000);

  test('to store anything, since it is full: enqueue says so, the log of a worker has one line, and both go on', async () => {
    const engine = engineOf({});
    const runs = new Notes<unknown>();
    const logger = { error: jest.fn() };
    await engine.work([task('a', runs.note)], { logger });
    await admin.config('SET', 'maxmemory', 1);
    await eventually(async () => {
      expect(await failure(send(engine, { name: 'a', args: [] }))).toMatchObject(unavailable('maxmemory'));
    });
    while (logger.error.mock.calls.length === 0) await sleep(20);
    await sleep(3000);
    expect(logger.error).toHaveBeenCalledTimes(1);
    await admin.config('SET', 'maxmemory', 0);
    await send(engine, { name: 'a', args: ['after'] });
    expect(await runs.first(1)).toEqual(['after']);
    await engine.close();
  }, 60_000);
});

describeWith({ server: ['Redis', 6379] }, 'bullmq, behind an address that another Redis takes over', () => {
  const proxy = new TcpProxy(0);
  let servers: OwnServer[];
  let admins: Redis[];

  beforeEach(async () => {
    servers = [await ownRedis(), await ownRedis()];
    admins = [];
    for (const server of servers) {
      await server.start();
      admins.push(new Redis(server.port));
      await admins.at(-1)?.config('SET', 'repl-diskless-sync-delay', 0);
    }
    await proxy.start();
    proxy.redirect(portOf(0));
    await makeReplica(1, 0);
  });

  afterEach(async () => {
    for (const admin of admins) admin.disconnect();
    await proxy.stop();
    await Promise.all(servers.map((server) => server.remove()));
  });

  function portOf(server: number): number {
    return servers[server]?.port ?? 0;
  }

  async function makeReplica(server: number, master: number): Promise<void> {
    const admin = admins[server];
    await admin?.replicaof('127.0.0.1', portOf(master));
    while (!(await admin?.info('replication'))?.includes('master_link_status:up')) await sleep(20);
  }

  /** Replication is asynchronous: until then a takeover loses what the old master has acknowledged. */
  async function replicated(): Promise<void> {
    await admins[0]?.set('written', 'after all others');
    expect(await admins[0]?.wait(1, 0)).toBe(1);
  }

  test('the old one goes on as a replica: producers and workers, idle or not, leave it within 5 s', async () => {
    const engine = closing(bullmq({ connection: { host: '127.0.0.1', port: proxy.port } }));
    const { waits, started, end } = waitingTask('waits');
    const runs = new Notes<unknown>();
    const logger = { error: jest.fn() };
    await engine.work([waits], { logger });
    await engine.work([task('a', runs.note)], { logger });
    const { id } = await send(engine, { name: 'waits', args: ['before'] });
    await started.first(1);
    await replicated();
    await admins[1]?.replicaof('NO', 'ONE');
    proxy.redirect(portOf(1));
    await makeReplica(0, 1);
    const start = Date.now();
    end();
    await eventually(() => send(engine, { name: 'a', args: ['after'] }));
    expect(await runs.first(1)).toEqual(['after']);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(Date.now() - start).toBeLessThan(5500); // Half a second for a busy machine.
    expect(started.all).toEqual(['before']);
    await engine.close();
  }, 60_000);

  test('its error says why while both are replicas, and a burst of refusals leaves no trace', async () => {
    const warned = jest.fn();
    process.on('warning', warned);
    const engine = closing(bullmq({ connection: { host: '127.0.0.1', port: portOf(1) } }));
    for (let count = 0; count < 3; count++) {
      const refused = Array.from({ length: 100 }, () => failure(send(engine, { name: 'a', args: [] })));
      for (const error of await Promise.all(refused)) expect(error).toMatchObject(unavailable('READONLY'));
    }
    await admins[1]?.replicaof('NO', 'ONE');
    await eventually(() => send(engine, { name: 'a', args: [] }));
    process.off('warning', warned);
    expect(warned).not.toHaveBeenCalled();
  }, 60_000);
});
