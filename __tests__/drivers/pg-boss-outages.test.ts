// The pg-boss engine while PostgreSQL is away: it says so in time, and goes on by itself.

import { once } from 'node:events';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { type OwnServer, ownPostgres } from './fixtures/own-server.js';
import { createEngine, ownConfig, type PgBossConfig, queue, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { closing, eventually, failure, over, startWorkerProcess, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'pg-boss, while PostgreSQL is away', () => {
  let server: OwnServer;
  let config: PgBossConfig;

  beforeEach(async () => {
    server = await ownPostgres();
    await server.start();
    config = ownConfig(server);
  }, 60_000);

  afterEach(() => server.remove());

  test('silently, with its connections open: enqueue and get reject in time, and work again after', async () => {
    const engine = closing(await createEngine(config));
    const { id } = await send(engine, { name: 'a', args: [] });
    server.freeze();
    const start = Date.now();
    const errors = await Promise.all([failure(send(engine, { name: 'a', args: [] })), failure(engine.get(id))]);
    expect(Date.now() - start).toBeLessThan(6000);
    for (const error of errors) expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
    server.thaw();
    expect(await eventually(() => engine.get(id))).toMatchObject({ id, state: 'queued' });
  }, 60_000);

  test('what was rejected before it could be sent is not stored later', async () => {
    const engine = closing(await createEngine(config)); // It has not made its queue yet.
    server.freeze();
    expect(await failure(send(engine, { name: 'a', args: [] }))).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    server.thaw();
    const { id } = await eventually(() => send(engine, { name: 'a', args: [] }));
    const boss = await startBoss(config);
    expect((await boss.findJobs(queue, {})).map((job) => job.id)).toEqual([id]);
    await boss.stop();
  }, 60_000);

  test('the logger of a worker is told, which goes on by itself', async () => {
    const engine = closing(await createEngine(config));
    const { waits, started, end } = waitingTask('waits');
    const error = jest.fn();
    await engine.work([waits], { logger: { error } });
    await server.stop();
    while (error.mock.calls.length === 0) await sleep(50);
    await server.start();
    const { id } = await eventually(() => send(engine, { name: 'waits', args: ['later'] }));
    await started.first(1);
    end();
    expect(await eventually(() => over(engine, id))).toMatchObject({ state: 'succeeded' });
    expect(error.mock.calls[0]).toEqual([
      { err: expect.anything() },
      expect.stringContaining('cannot reach its store'),
    ]);
  }, 60_000);

  test('a task that ends meanwhile is not run again', async () => {
    const engine = closing(await createEngine(config));
    const { waits, started, end } = waitingTask('waits');
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'waits', args: ['once'] });
    await started.first(1);
    await server.stop();
    end();
    await server.start();
    expect(await eventually(() => over(engine, id))).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(started.all).toEqual(['once']);
  }, 60_000);

  test('close() ends all the same, and nothing keeps the process up', async () => {
    const child = await startWorkerProcess(join(__dirname, 'fixtures/pg-boss.ts'), config);
    await server.stop();
    child.send('close');
    expect(await once(child, 'exit')).toEqual([0, null]);
  }, 60_000);
});
