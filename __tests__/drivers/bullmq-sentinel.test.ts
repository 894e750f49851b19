// The BullMQ engine behind a Sentinel, while both that and Redis are away.

import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type BullmqOptions, bullmq } from '../../lib/drivers/bullmq/index.js';
import { task } from '../../lib/index.js';
import { type OwnServer, ownSentinel, startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing, Notes, startWorkerProcess } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, while Redis and its Sentinel are away', () => {
  let servers: OwnServer[];
  let own: BullmqOptions;

  beforeEach(async () => {
    const redis = await startRedis();
    const sentinel = await ownSentinel(redis.port);
    await sentinel.start();
    servers = [redis, sentinel];
    own = { connection: { sentinels: [{ host: '127.0.0.1', port: sentinel.port }], name: 'master' } };
  });

  afterEach(() => Promise.all(servers.map((server) => server.remove())));

  test('the logger of a worker is told once, and nothing keeps the process up after close()', async () => {
    const engine = closing(bullmq(own));
    const error = jest.fn();
    const runs = new Notes<unknown>();
    await engine.work([task('a', runs.note)], { logger: { error } });
    await send(engine, { name: 'a', args: ['before'] });
    await runs.first(1);
    const child = await startWorkerProcess(join(__dirname, 'fixtures/bullmq.ts'), own);
    for (const server of servers) await server.stop();
    await sleep(8000); // Longer than BullMQ waits for an answer before it connects anew.
    expect(error).toHaveBeenCalledTimes(1);
    child.send('close');
    expect(await once(child, 'exit')).toEqual([0, null]);
  }, 60_000);
});
