// The BullMQ engine while Redis is away: it says so in time, and goes on by itself.

import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { Queue } from 'bullmq';
import { Redis } from 'ioredis';
import { type BullmqOptions, bullmq } from '../../lib/drivers/bullmq/index.js';
import { task } from '../../lib/index.js';
import { refusals, unavailable } from './fixtures/bullmq.js';
import { type OwnServer, ownRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing, eventually, failure, over, startWorkerProcess, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, while Redis is away', () => {
  let redis: OwnServer;
  let own: { connection: { host: string; port: number } };

  beforeEach(async () => {
    redis = await ownRedis();
    own = { connection: { host: '127.0.0.1', port: redis.port } };
  });

  afterEach(() => redis.remove());

  test('the logger of a worker is told once, which goes on by itself', async () => {
    await redis.start();
    const engine = closing(bullmq(own));
    const error = jest.fn();
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits], { logger: { error } });
    await redis.stop();
    await sleep(2000);
    await redis.start();
    await eventually(() => send(engine, { name: 'waits', args: ['later'] }));
    await started.first(1);
    end();
    expect(error).toHaveBeenCalledTimes(1);
  }, 60_000);

  test('from the start: enqueue, get and work reject in time, and nothing of it happens later', async () => {
    const engine = closing(bullmq(own));
    const start = Date.now();
    const errors = await Promise.all([
      failure(send(engine, { name: 'a', args: [] })),
      failure(engine.get(randomUUID())),
      failure(engine.work([task('a', () => {})])),
    ]);
    for (const error of errors) expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
    expect(Date.now() - start).toBeLessThan(6000);
    await redis.start();
    const { id } = await eventually(() => send(engine, { name: 'a', args: [] }));
    const queue = new Queue('express-background-tasks', own);
    expect((await queue.getJobs()).map((job) => job.id)).toEqual([id]);
    expect(await queue.getWorkersCount()).toBe(0);
    await queue.close();
  }, 60_000);

  test('its error says why: there is no server, or the password is wrong', async () => {
    const refused = await rejections(own);
    for (const error of refused) expect(error).toMatchObject(unavailable('ECONNREFUSED'));
    await redis.start();
    const admin = new Redis(own.connection);
    await admin.config('SET', 'requirepass', 'right');
    const wrong = await rejections({ connection: { ...own.connection, password: 'wrong' } });
    for (const error of wrong) expect(error).toMatchObject(unavailable('WRONGPASS'));
    admin.disconnect();
  }, 60_000);

  test('its error says what came last: an old reason is forgotten with the next connection', async () => {
    const engine = closing(bullmq(own));
    expect(await failure(engine.get(randomUUID()))).toMatchObject(unavailable('ECONNREFUSED'));
    await redis.start();
    await eventually(() => engine.get(randomUUID()));
    redis.freeze();
    expect(await failure(engine.get(randomUUID()))).toMatchObject(unavailable('no answer within 4500 ms'));
    redis.thaw();
  }, 60_000);

  test('silently, with its connections open: enqueue and get reject in time, and work again after', async () => {
    await redis.start();
    const engine = closing(bullmq(own));
    const { id } = await send(engine, { name: 'a', args: [] });
    redis.freeze();
    const errors = await Promise.all([failure(send(engine, { name: 'a', args: [] })), failure(engine.get(id))]);
    for (const error of errors) expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    redis.thaw();
    expect(await eventually(() => engine.get(id))).toMatchObject({ id, state: 'queued' });
  }, 60_000);

  test('an enqueue that was under way is rejected at once and not sent again', async () => {
    await redis.start();
    const engine = closing(bullmq(own));
    await send(engine, { name: 'a', args: [] });
    redis.freeze();
    const rejected = failure(send(engine, { name: 'a', args: [] }));
    await redis.stop();
    expect(await rejected).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await redis.start();
    await eventually(() => send(engine, { name: 'a', args: [] }));
    const queue = new Queue('express-background-tasks', own);
    expect(await queue.getJobs()).toHaveLength(2);
    await queue.close();
  }, 60_000);

  test('a task that ends meanwhile is not run again', async () => {
    await redis.start();
    const engine = closing(bullmq(own));
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'waits', args: ['once'] });
    await started.first(1);
    await redis.stop();
    end();
    await redis.start();
    expect(await eventually(() => over(engine, id))).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(started.all).toEqual(['once']);
  }, 60_000);

  test('close() ends all the same, and nothing keeps the process up', async () => {
    await redis.start();
    const child = await startWorkerProcess(join(__dirname, 'fixtures/bullmq.ts'), own);
    await redis.stop();
    child.send('close');
    expect(await once(child, 'exit')).toEqual([0, null]);
  }, 60_000);
});

function rejections(options: BullmqOptions): Promise<unknown[]> {
  return refusals(closing(bullmq(options)));
}
