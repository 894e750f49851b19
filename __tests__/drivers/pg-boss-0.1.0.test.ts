// Jobs that 0.1.0 has stored on pg-boss: they are worked and found as those of this release.

import { randomUUID } from 'node:crypto';
import { Client } from 'pg';
import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { currentTask, type TaskEngine, type TaskRecord, task } from '../../lib/index.js';
import { createStore, database, type PgBossStore, queue, type StartedBoss, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { Notes, over, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

/** As they stand in that release. */
const queueOptions = {
  policy: 'exclusive',
  retryLimit: 2 ** 31 - 1,
  retryDelay: 2,
  heartbeatSeconds: 15,
  expireInSeconds: 24 * 60 * 60,
  retentionSeconds: 3650 * 24 * 60 * 60,
  deleteAfterSeconds: 7 * 24 * 60 * 60,
};

const retries = { limit: 1, minDelay: 0, maxDelay: 0, factor: 1, jitter: false };

/** The hash that it makes of the key "daily". */
const daily = '-mqSz4DPIY7XF7PMOkBf_aP99qmD1y_tG90RNiL-oD0';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on pg-boss, what 0.1.0 has stored', () => {
  const client = new Client(database);
  let store: PgBossStore;
  let boss: StartedBoss;
  let engine: TaskEngine;

  beforeAll(() => client.connect());
  afterAll(() => client.end());

  beforeEach(async () => {
    store = createStore();
    boss = await startBoss(store.config);
    await boss.createQueue(queue, queueOptions);
    engine = pgBoss(boss);
  });

  afterEach(async () => {
    await engine.close();
    await boss.stop();
    await store.remove();
  });

  async function enqueue010(args: unknown[], options: object = {}, data: object = {}): Promise<string> {
    const id = randomUUID();
    const message = { name: 'a', args: JSON.stringify(args), failed: 0, dropped: 0, unused: 0, ...data };
    await boss.send(queue, message, {
      id,
      singletonKey: id,
      priority: 0,
      startAfter: 0,
      group: { id: 'a' },
      ...options,
    });
    return id;
  }

  /** Leaves a job as its worker has. */
  async function leave(id: string, columns: string): Promise<string> {
    await client.query(`UPDATE ${store.config.schema}.job SET ${columns} WHERE id = $1`, [id]);
    return id;
  }

  it('runs, with its arguments, retries and counts', async () => {
    const taken = "state = 'retry', started_on = now()";
    const ids = [
      await enqueue010(['new', 'ž \0']),
      await enqueue010(['retries'], {}, { retries }),
      await leave(await enqueue010(['failed before'], {}, { retries, failed: 1 }), `${taken}, retry_count = 0`),
      await leave(await enqueue010(['dropped before'], {}, { dropped: 1, unused: 2 }), `${taken}, retry_count = 2`),
      await leave(await enqueue010(['twice died before']), `${taken}, retry_count = 1`),
    ];
    const runs = new Notes<unknown[]>();
    const a = task('a', (...args: unknown[]) => {
      runs.note([...args, currentTask()?.attempt]);
      if (String(args[0]).startsWith('retries') || args[0] === 'failed before') throw new Error('no');
    });
    await engine.work([a], { onError: () => {} });
    const records: TaskRecord[] = [];
    for (const id of ids) records.push(await over(engine, id));
    expect(records.map(({ name, state, attempts }) => [name, state, attempts])).toEqual([
      ['a', 'succeeded', 1],
      ['a', 'failed', 2],
      ['a', 'failed', 2],
      ['a', 'succeeded', 2],
      ['a', 'succeeded', 3],
    ]);
    expect(runs.all).toHaveLength(6);
    expect(runs.all).toEqual(
      expect.arrayContaining([
        ['new', 'ž \0', 1],
        ['retries', 1],
        ['retries', 2],
        ['failed before', 2],
        ['dropped before', 2],
        ['twice died before', 3],
      ]),
    );
  });

  it('holds its key', async () => {
    const id = await enqueue010([], { singletonKey: daily });
    expect(await send(engine, { name: 'a', args: [], key: 'daily' })).toEqual({ id });
  });

  it('is found when it is over, also what failed where pg-boss could not say so', async () => {
    const error = { name: 'Error', message: 'no' };
    const failure = JSON.stringify({ error: JSON.stringify(error), attempts: 3 });
    const leaveOver = async (state: string, output: string): Promise<string> =>
      leave(
        await enqueue010([]),
        `started_on = now(), completed_on = now(), retry_limit = 0, state = '${state}', output = '${output}'`,
      );
    const succeeded = await leaveOver('completed', '{"result": "[1]"}');
    expect(await engine.get(succeeded)).toMatchObject({ state: 'succeeded', attempts: 1, result: [1] });
    for (const id of [await leaveOver('failed', failure), await leaveOver('completed', failure)]) {
      expect(await engine.get(id)).toMatchObject({ state: 'failed', attempts: 3, error });
      expect(await engine.retry(id)).toBe(1);
      expect(await engine.get(id)).toMatchObject({ state: 'queued', error });
    }
    expect(await engine.retry(succeeded)).toBe(0);
  });

  it('can be listed, cancelled and removed', async () => {
    const id = await enqueue010([1], { singletonKey: daily, priority: 3 });
    const queued = {
      id,
      name: 'a',
      state: 'queued',
      attempts: 0,
      args: [1],
      priority: 3,
      enqueuedAt: expect.any(Date),
    };
    expect(await engine.list()).toEqual([queued]);
    expect(await engine.cancel(id)).toBe('cancelled');
    expect((await send(engine, { name: 'a', args: [], key: 'daily' })).id).not.toBe(id);
    expect(await engine.retry(id)).toBe(0); // Its key is live.
    expect(await engine.remove({ name: 'a' })).toBe(2);
  });

  it('has one more behind it while it runs', async () => {
    await enqueue010([1], { singletonKey: daily });
    const { waits, started, end } = waitingTask('a');
    await engine.work([waits]);
    await started.first(1);
    await send(engine, { name: 'a', args: [2], key: 'daily', whileRunning: 'again' });
    end();
    expect(await started.first(2)).toEqual([1, 2]);
  });
});
