// A stored task in a thread: the worker keeps its lease while the thread computes, and it is cancelled, dropped and retried as any.

import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { BullmqDriver } from '../../lib/drivers/bullmq/driver';
import { createEngine } from '../../lib/engine/index';
import { type TaskEngine, type TaskRecord, type TaskWorker, task } from '../../lib/index';
import { memory } from '../../lib/testing/index';
import { connection, obliterate, shortTiming } from '../drivers/fixtures/bullmq';
import { createEngine as createPgBoss, createStore as createSchema } from '../drivers/fixtures/pg-boss';
import { createEngine as createSqlite } from '../drivers/fixtures/sqlite';
import { over, reaches } from '../drivers/fixtures/suite-tools';
import { describeWith } from '../drivers/requirements';
import { openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

const pool = openThreads();

describe('a stored task in a thread', () => {
  it('finds itself by currentTask(), and its result and progress are stored', async () => {
    const engine = memory();
    const describeTask = workTask(pool, 'describeTask');
    const report = workTask(pool, 'report');
    await engine.work([describeTask, report]);
    const [described, reported] = [await engine.enqueue(describeTask), await engine.enqueue(report, 1, { rows: 2 })];
    expect(await over(engine, described.id)).toMatchObject({
      state: 'succeeded',
      result: { id: described.id, name: 'describeTask', attempt: 1, aborted: false },
    });
    expect(await over(engine, reported.id)).toMatchObject({ state: 'succeeded', progress: { rows: 2 } });
    await engine.close();
  });

  it('that never ends fails at its time limit, is tried again, and does not hold up the worker', async () => {
    const engine = memory();
    const reports: unknown[] = [];
    const never = workTask(pool, 'never', { timeout: 50, retries: { limit: 1, minDelay: 1 } });
    const sum = workTask(pool, 'default');
    await engine.work([never, sum], { onError: (error, { task }) => void reports.push([task.attempt, error]) });
    const { id } = await engine.enqueue(never);
    const other = await engine.enqueue(sum, 1, 2);
    expect(await over(engine, other.id)).toMatchObject({ state: 'succeeded', result: 3 });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 2 });
    expect(reports).toEqual([[2, expect.objectContaining({ code: 'ERR_TASK_TIMEOUT' })]]);
    await engine.close();
  });

  /** Of a task that never yields. */
  async function beginComputing(engine: TaskEngine): Promise<{ id: string; worker: TaskWorker }> {
    const compute = workTask(pool, 'reportAndCompute');
    const worker = await engine.work([compute]);
    const { id } = await engine.enqueue(compute, ['begun'], 60_000);
    await reaches(engine, id, ({ progress }) => progress === 'begun');
    return { id, worker };
  }

  it('is cancelled by the engine, also where it never yields', async () => {
    const engine = memory();
    const { id } = await beginComputing(engine);
    expect(await engine.cancel(id)).toBe('signalled');
    expect(await over(engine, id)).toMatchObject({ state: 'cancelled' });
    await engine.close();
  });

  it('is given back at the timeout of close()', async () => {
    const engine = memory();
    const { id, worker } = await beginComputing(engine);
    await worker.close({ timeout: 1 });
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
    await engine.remove(id);
    await engine.close();
  });

  it('is drained by memory()', async () => {
    const engine = memory();
    const sum = workTask(pool, 'default');
    await engine.enqueue(sum, 1, 2);
    await engine.drain([sum, task('other', () => {})]);
    expect(await engine.stats()).toMatchObject({ succeeded: 1, queued: 0 });
    await engine.close();
  });
});

/** Two workers: the other one would take the task of a worker that gives no sign of life. */
async function computesOnce(engines: readonly TaskEngine[], ms: number): Promise<TaskRecord> {
  const [engine] = engines;
  if (engine === undefined) throw new Error('there is no engine');
  const compute = workTask(pool, 'computeFor');
  for (const each of engines) await each.work([compute], { concurrency: 1 });
  const { id } = await engine.enqueue(compute, ms);
  const record = await over(engine, id);
  await Promise.all(engines.map((each) => each.close()));
  return record;
}

const once = expect.objectContaining({ state: 'succeeded', attempts: 1 });

describeWith({ node: 22 }, 'on SQLite', () => {
  const folder = mkdtempSync(join(tmpdir(), 'tasks-threads-'));
  afterAll(() => rmSync(folder, { recursive: true }));

  it('the lease of a task is kept while its thread computes', async () => {
    const config = { path: join(folder, 'tasks.db'), lease: 300, pollInterval: 20 };
    expect(await computesOnce([createSqlite(config), createSqlite(config)], 1500)).toEqual(once);
  });
});

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on pg-boss', () => {
  it('the heartbeat of a task goes on while its thread computes', async () => {
    const store = createSchema();
    const engines = [await createPgBoss(store.config), await createPgBoss(store.config)];
    expect(await computesOnce(engines, 18_000)).toEqual(once);
    await store.remove();
  }, 90_000);
});

describeWith({ server: ['Redis', 6379] }, 'on BullMQ', () => {
  it('the lock of a task is kept while its thread computes', async () => {
    const queue = `tasks-${randomUUID()}`;
    const open = (): TaskEngine => createEngine(new BullmqDriver(queue, connection, shortTiming));
    expect(await computesOnce([open(), open()], 2000)).toEqual(once);
    await obliterate(queue);
  });
});
