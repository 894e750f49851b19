// Tasks of the pg-boss engine that no worker knows: each is reported once, however many they are, and keeps nobody waiting.

import { setTimeout as sleep } from 'node:timers/promises';
import { Client } from 'pg';
import { PgBossDriver } from '../../lib/drivers/pg-boss/driver.js';
import { createEngine } from '../../lib/engine/create-engine.js';
import { type OnError, type TaskEngine, task } from '../../lib/index.js';
import { createStore, database, type PgBossStore, queue, type StartedBoss, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { Notes, over, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on the pg-boss engine, tasks that nobody knows', () => {
  const client = new Client(database);
  const engines: TaskEngine[] = [];
  let store: PgBossStore;
  let boss: StartedBoss;

  beforeAll(() => client.connect());
  afterAll(() => client.end());

  beforeEach(async () => {
    store = createStore();
    boss = await startBoss(store.config);
  });

  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
    await boss.stop();
    await store.remove();
  });

  function open(unknownAfter = 300): TaskEngine {
    const engine = createEngine(new PgBossDriver(boss, { unknownAfter }));
    engines.push(engine);
    return engine;
  }

  function reporter(): { onError: OnError; reports: Notes<string> } {
    const reports = new Notes<string>();
    return { onError: (error, { task }) => reports.note(`${Reflect.get(Object(error), 'code')} ${task.id}`), reports };
  }

  /** As enqueued at once. */
  async function enqueueMany(engine: TaskEngine, name: string, count: number): Promise<string[]> {
    const { id } = await send(engine, { name, args: [] });
    const { rows } = await client.query<{ id: string }>(
      `INSERT INTO SCHEMA.job (name, data, state, retry_limit, policy, group_id, singleton_key, start_after, keep_until)
       SELECT name, data, state, retry_limit, policy, group_id, singleton_key || number, start_after, keep_until
       FROM SCHEMA.job, generate_series(2, $2) AS number WHERE id = $1 RETURNING id`.replaceAll(
        'SCHEMA',
        store.config.schema,
      ),
      [id, count],
    );
    return [id, ...rows.map((row) => row.id)];
  }

  const reportOf = (id: string): string => `ERR_UNKNOWN_TASK ${id}`;

  it('are reported once each, also thousands of one name', async () => {
    const engine = open();
    const { onError, reports } = reporter();
    const ids = await enqueueMany(engine, 'unknown', 3000);
    for (let number = 0; number < 5; number++) ids.push((await send(engine, { name: `one ${number}`, args: [] })).id);
    await engine.work([task('known', () => {})], { onError });
    await reports.first(ids.length);
    const { id } = await send(engine, { name: 'unknown', args: [] });
    expect(await reports.first(ids.length + 1)).toContain(reportOf(id));
    await sleep(1500); // Another walk.
    expect(reports.all.toSorted()).toEqual([...ids, id].map(reportOf).toSorted());
  }, 60_000);

  it('keep those that are known from nothing', async () => {
    const engine = open();
    await enqueueMany(engine, 'unknown', 3000);
    await engine.work([task('known', () => 'ran')], { onError: () => {} });
    const { id } = await send(engine, { name: 'known', args: [] });
    expect(await over(engine, id)).toMatchObject({ attempts: 1, result: 'ran' });
  });

  it('are not those of a work() call that follows', async () => {
    const engine = open(1500);
    const { onError, reports } = reporter();
    const ids: string[] = [];
    for (let count = 0; count < 20; count++) ids.push((await send(engine, { name: 'b', args: [] })).id);
    await engine.work([task('a', () => {})], { onError });
    await sleep(300);
    await engine.work([task('b', () => {})], { onError });
    for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    await sleep(2000);
    expect(reports.all).toEqual([]);
  });

  it('are not taken by a worker while another one of its process knows them', async () => {
    const engine = open();
    const { onError, reports } = reporter();
    const { waits, started, end } = waitingTask('b');
    await engine.work([waits], { concurrency: 1, onError });
    await engine.work([task('a', () => {})], { onError });
    const [, second] = [await send(engine, { name: 'b', args: [] }), await send(engine, { name: 'b', args: [] })];
    await started.first(1);
    await sleep(1000); // Some polls, and a walk.
    const [job] = await boss.findJobs(queue, { id: second.id });
    expect(job).toMatchObject({ startedOn: null, data: { unused: 0 } });
    expect(reports.all).toEqual([]);
    end();
    await over(engine, second.id);
  });

  it('are those that only a worker knew that has been closed', async () => {
    const engine = open();
    const { onError, reports } = reporter();
    const { waits, started } = waitingTask('b');
    const worker = await engine.work([waits], { concurrency: 1 });
    await engine.work([task('a', () => {})], { onError });
    const ids = [await send(engine, { name: 'b', args: [] })];
    await started.first(1);
    ids.push(await send(engine, { name: 'b', args: [] }));
    await sleep(1500); // A walk.
    expect(reports.all).toEqual([]);
    await worker.close({ timeout: 0 });
    expect((await reports.first(2)).toSorted()).toEqual(ids.map(({ id }) => reportOf(id)).toSorted());
  });

  it('are not those that another process works, while it does', async () => {
    const other = open();
    const { waits, started } = waitingTask('b');
    const worker = await other.work([waits], { concurrency: 1 });
    await send(other, { name: 'b', args: [] });
    await started.first(1);
    const { onError, reports } = reporter();
    const engine = open();
    await engine.work([task('a', () => {})], { onError });
    const { id } = await send(engine, { name: 'b', args: [] });
    await sleep(2500); // Some walks.
    expect(reports.all).toEqual([]);
    await worker.close({ timeout: 0 });
    expect(await reports.first(1)).toContain(reportOf(id));
  });

  it('are a line for each name in a log', async () => {
    const engine = open();
    const lines: string[] = [];
    const logger = { error: (_context: object, message: string) => void lines.push(message) };
    await enqueueMany(engine, 'one', 600);
    await enqueueMany(engine, 'two', 600);
    await engine.work([task('known', () => {})], { logger });
    await sleep(3000); // All walks that these need.
    expect(lines.toSorted()).toEqual(['one', 'two'].map((name) => expect.stringContaining(`"${name}"`)));
  });
});
