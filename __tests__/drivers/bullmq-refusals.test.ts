// The BullMQ engine and a Redis that answers, but not as it should.

import { setTimeout as sleep } from 'node:timers/promises';
import { Redis } from 'ioredis';
import { type BullmqOptions, bullmq } from '../../lib/drivers/bullmq/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { refusals, unavailable } from './fixtures/bullmq.js';
import { type OwnServer, ownRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing, eventually, failure, Notes } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, a database that Redis refuses', () => {
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

  function engineOf(options: Partial<BullmqOptions['connection']>): TaskEngine {
    return closing(bullmq({ connection: { host: '127.0.0.1', port: redis.port, ...options } }));
  }

  test('from the start: enqueue, get and work say why, and nothing reaches database 0', async () => {
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

  test('since the user may not select one', async () => {
    await admin.call('ACL', 'SETUSER', 'app', 'on', '>secret', '~*', '&*', '+@all', '-select');
    const app = { username: 'app', password: 'secret' };
    for (const error of await refusals(engineOf({ ...app, db: 1 }))) {
      expect(error).toMatchObject(unavailable("'select'"));
    }
    const { id } = await send(engineOf({ ...app, db: 0 }), { name: 'a', args: [] });
    expect(await engineOf({ db: 0 }).get(id)).toMatchObject({ id });
  }, 60_000);

  test('later: nothing is enqueued or taken until it is allowed again, and then all goes on by itself', async () => {
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
});
