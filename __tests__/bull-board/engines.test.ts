// TaskEngineAdapter on each engine: what the page shows, and what its buttons do.

import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { TaskEngineAdapter } from '../../lib/bull-board/index.js';
import { currentTask, type Task, type TaskEngine, task } from '../../lib/index.js';
import { send } from '../drivers/fixtures/send.js';
import { Gate, over, reaches } from '../drivers/fixtures/suite-tools.js';
import { describeWith, type Requirements } from '../drivers/requirements.js';
import { type ServedBoard, serveBoard } from '../fixtures/serve-board.js';

jest.setTimeout(120_000);

interface Store {
  config: unknown;
  remove(): void | Promise<void>;
}

interface Subject extends Requirements {
  /** Of the fixtures of the drivers. */
  module: string;
  /** Default: the module's own. */
  createStore?(): Store;
}

const later = 3_600_000;
const directory = mkdtempSync(join(tmpdir(), 'background-tasks-board-'));
const kept = (config: object): Store => ({ config, remove: () => {} });

afterAll(() => rmSync(directory, { recursive: true }));

const redis = ['Redis', 6379] as const;
const postgres = ['PostgreSQL', 5432] as const;

describeBoard('memory', { module: 'memory', createStore: () => kept({ name: randomUUID() }) });
describeBoard('sqlite', {
  module: 'sqlite',
  node: 22,
  createStore: () => kept({ path: join(directory, randomUUID()) }),
});
describeBoard('pg-boss', { module: 'pg-boss', node: 22, server: postgres });
describeBoard('bullmq', { module: 'bullmq', server: redis });

function describeBoard(name: string, { module, createStore, ...requirements }: Subject): void {
  describeWith(requirements, `the board on ${name}`, () => {
    let store: Store;
    let engine: TaskEngine;
    let board: ServedBoard;
    let gate: Gate;
    let sync: Task;

    beforeEach(async () => {
      const fixture = require(join(__dirname, '../drivers/fixtures', module));
      store = (createStore ?? fixture.createStore)();
      engine = await fixture.createEngine(store.config);
      board = await serveBoard(new TaskEngineAdapter(engine));
      gate = new Gate();
    });

    afterEach(async () => {
      gate.open();
      await engine.close();
      await store.remove();
    });

    /** Two tasks have failed, and no worker is left. They will not fail again. */
    async function twoFailed(): Promise<string[]> {
      let failures = 2;
      sync = task('sync', () => {
        if (failures-- > 0) throw new Error('the server does not answer');
      });
      const worker = await engine.work([sync], { onError: () => {} });
      const ids: string[] = [];
      for (const user of ['ada', 'grace']) ids.push((await send(engine, { name: 'sync', args: [user] })).id);
      for (const id of ids) await over(engine, id);
      await worker.close();
      return ids;
    }

    async function cancelled(): Promise<string> {
      const { id } = await send(engine, { name: 'nobody', args: ['cancelled'] });
      await engine.cancel(id);
      return id;
    }

    it('shows each task under its tab, with arguments, progress, result, error and stack', async () => {
      const worked = [
        task('import', (file: string) => {
          currentTask()?.progress({ percent: 50 });
          return { file };
        }),
        task('fail', () => {
          throw new TypeError('no such file');
        }),
        task('run', () => gate.opened),
      ];
      // Busy with the last of them, the worker looks at no other.
      await engine.work(worked, { onError: () => {}, concurrency: 1 });
      const done = await send(engine, { name: 'import', args: ['a.csv', { rows: 2 }] });
      const failed = await send(engine, { name: 'fail', args: [] });
      await over(engine, done.id);
      await over(engine, failed.id);
      const running = await send(engine, { name: 'run', args: [1] });
      await reaches(engine, running.id, ({ state }) => state === 'running');
      const waiting = await send(engine, { name: 'nobody', args: ['soon'], priority: 5, key: 'nobody' });
      const delayed = await send(engine, { name: 'nobody', args: ['later'], delay: later });
      const stopped = await cancelled();

      const latest = await board.tab('latest');
      expect(latest).toMatchObject({ name: 'tasks', displayName: 'tasks', isPaused: false, hasWorkers: null });
      expect(latest.counts).toMatchObject({ active: 1, waiting: 1, completed: 1, failed: 2, delayed: 1 });
      expect(latest.statuses).toEqual(['latest', 'active', 'waiting', 'completed', 'failed', 'delayed']);
      const all = [done, failed, running, waiting, delayed].map(({ id }) => id);
      expect(latest.jobs.map(({ id }) => id).sort()).toEqual([...all, stopped].sort());
      expect(await board.ids('active')).toEqual([running.id]);
      expect(await board.ids('waiting')).toEqual([waiting.id]);
      expect(await board.ids('completed')).toEqual([done.id]);
      expect(await board.ids('failed')).toEqual([failed.id, stopped]);
      expect(await board.ids('delayed')).toEqual([delayed.id]);
      expect(await board.ids('paused')).toEqual([]);

      const [listed] = (await board.tab('completed')).jobs;
      expect(listed).toMatchObject({ name: 'import', data: ['a.csv', { rows: 2 }], progress: { percent: 50 } });
      expect(await board.job(done.id)).toMatchObject({
        status: 'completed',
        job: {
          data: ['a.csv', { rows: 2 }],
          returnValue: { file: 'a.csv' },
          progress: { percent: 50 },
          attempts: 1,
          isFailed: false,
          timestamp: expect.any(Number),
          processedOn: expect.any(Number),
          finishedOn: expect.any(Number),
        },
      });
      expect(await board.job(failed.id)).toMatchObject({
        status: 'failed',
        job: {
          failedReason: 'TypeError: no such file',
          stacktrace: [expect.stringMatching(/^TypeError: no such file\n.*engines\.test/s)],
          isFailed: true,
        },
      });
      expect(await board.job(waiting.id)).toMatchObject({
        status: 'waiting',
        job: { opts: { priority: 5, key: 'nobody' } },
      });
      expect((await board.job(delayed.id)).job.delay).toBeGreaterThan(later - 10_000);
      expect(await board.job(stopped)).toMatchObject({
        status: 'failed',
        job: { failedReason: 'The task was cancelled', isFailed: true },
      });
    });

    it('shows page after page of a tab', async () => {
      const argLists = Array.from({ length: 23 }, (_, value): [number] => [value]);
      await engine.enqueueMany(task<[number]>('nobody'), argLists);
      const ids = (await engine.list()).map(({ id }) => id);
      expect((await board.tab('waiting')).pagination.pageCount).toBe(3);
      expect(await board.ids('waiting')).toEqual(ids.slice(0, 10));
      expect(await board.ids('waiting', '&page=3')).toEqual(ids.slice(20));
      const delayed = await send(engine, { name: 'nobody', args: [], delay: later });
      expect(await board.ids('waiting', '&page=2&jobsPerPage=20')).toEqual(ids.slice(20));
      expect(await board.ids('delayed')).toEqual([delayed.id]);

      await Promise.all(ids.map((id) => engine.cancel(id)));
      const failed = await twoFailed();
      const pages = [
        await board.ids('failed'),
        await board.ids('failed', '&page=2'),
        await board.ids('failed', '&page=3'),
      ];
      expect(pages.map(({ length }) => length)).toEqual([10, 10, 5]);
      expect(pages.flat().slice(0, 2).sort()).toEqual([...failed].sort());
      expect(pages.flat().sort()).toEqual([...failed, ...ids].sort());
    });

    it('retries a failed task, and one that was cancelled', async () => {
      const [failed = ''] = await twoFailed();
      const stopped = await cancelled();
      for (const id of [failed, stopped]) {
        expect(await board.ask('PUT', `/queues/tasks/${id}/retry`)).toMatchObject({ status: 204 });
        expect(await board.job(id)).toMatchObject({ status: 'waiting' });
      }
      await engine.work([sync]);
      expect(await over(engine, failed)).toMatchObject({ state: 'succeeded' });
      expect(await board.ask('PUT', `/queues/tasks/${failed}/retry`)).toMatchObject({
        status: 405,
        body: { message: 'A task that has succeeded is not run again: enqueue another one' },
      });
    });

    it('retries all that have failed, and nothing that was cancelled', async () => {
      const ids = await twoFailed();
      const stopped = await cancelled();
      expect(await board.ask('PUT', '/queues/tasks/retry/failed')).toMatchObject({ status: 200 });
      await engine.work([sync]);
      for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
      expect(await board.ids('failed')).toEqual([stopped]);
      expect(await board.ask('PUT', '/queues/tasks/retry/completed')).toMatchObject({ status: 405 });
    });

    it('lets a delayed task run now, or all of them', async () => {
      const ids: string[] = [];
      for (let count = 0; count < 3; count++) {
        ids.push((await send(engine, { name: 'nobody', args: [count], delay: later })).id);
      }
      expect(await board.ask('PUT', `/queues/tasks/${ids[0]}/promote`)).toMatchObject({ status: 204 });
      expect(await board.ids('waiting')).toEqual([ids[0]]);
      expect(await board.ask('PUT', '/queues/tasks/promote')).toMatchObject({ status: 200 });
      expect((await board.ids('waiting')).sort()).toEqual([...ids].sort());
      expect(await board.ids('delayed')).toEqual([]);
    });

    it('removes a task, and all of a tab', async () => {
      const [failed = ''] = await twoFailed();
      expect(await board.ask('PUT', `/queues/tasks/${failed}/clean`)).toMatchObject({ status: 204 });
      expect(await board.ask('GET', `/queues/tasks/${failed}`)).toMatchObject({ status: 404 });

      await cancelled();
      await send(engine, { name: 'nobody', args: [], delay: later });
      const waiting = await send(engine, { name: 'nobody', args: [] });
      for (const status of ['failed', 'completed', 'delayed']) {
        expect(await board.ask('PUT', `/queues/tasks/clean/${status}`)).toMatchObject({ status: 200 });
        expect(await board.ids(status)).toEqual([]);
      }
      expect(await board.ids('waiting')).toEqual([waiting.id]);
      expect(await board.ask('PUT', '/queues/tasks/clean/wait')).toMatchObject({ status: 200 });
      expect(await board.ids('latest')).toEqual([]);
      await send(engine, { name: 'nobody', args: [] });
      await send(engine, { name: 'nobody', args: [], delay: later });
      expect(await board.ask('PUT', '/queues/tasks/empty')).toMatchObject({ status: 200 });
      expect(await board.ids('latest')).toEqual([]);
    });

    it('does not remove a task that runs', async () => {
      await engine.work([task('run', () => gate.opened)]);
      const { id } = await send(engine, { name: 'run', args: [] });
      await reaches(engine, id, ({ state }) => state === 'running');
      expect(await board.ask('PUT', `/queues/tasks/${id}/clean`)).toMatchObject({ status: 409 });
      expect(await board.ask('PUT', '/queues/tasks/clean/active')).toMatchObject({
        status: 405,
        body: { message: 'Only tasks that do not run can be removed' },
      });
      expect(await board.ids('active')).toEqual([id]);
    });

    it('shows the schedules, and removes one', async () => {
      const report = task<[year: number]>('report');
      await engine.schedule('nightly', { cron: '0 3 * * *', timeZone: 'Europe/Berlin' }, report, 2027);
      expect((await board.tab('latest')).jobSchedulerCount).toBe(1);
      expect(await board.schedules()).toEqual([
        {
          id: 'nightly',
          queueName: 'tasks',
          name: 'report',
          pattern: '0 3 * * *',
          tz: 'Europe/Berlin',
          next: expect.any(Number),
          template: { data: [2027] },
        },
      ]);
      expect(await board.ask('PUT', '/queues/tasks/job-schedulers/nightly/remove')).toMatchObject({ status: 204 });
      expect(await board.ask('PUT', '/queues/tasks/job-schedulers/nightly/remove')).toMatchObject({ status: 404 });
      expect(await board.schedules()).toEqual([]);
    });

    it('answers no button with a failure of the server, whatever the task, and no odd id or page', async () => {
      const [failed = ''] = await twoFailed();
      const delayed = await send(engine, { name: 'nobody', args: [], delay: later });
      const waiting = await send(engine, { name: 'nobody', args: [] });
      const oddIds = [
        randomUUID(),
        '-1',
        '0',
        '%',
        '%00',
        '../..',
        "' OR 1=1 --",
        '\u{1f600}',
        'a'.repeat(5000),
        '__proto__',
      ];
      const queueStatuses = ['failed', 'completed', 'delayed', 'wait', 'active', 'paused', '__proto__'];
      for (const [index, jobId] of [...oddIds, waiting.id, delayed.id, failed].entries()) {
        const queueStatus = queueStatuses[index % queueStatuses.length] ?? '';
        const pressed = await board.pressAll({ queueName: 'tasks', jobId, schedulerId: jobId, queueStatus });
        expect(pressed.filter(({ status }) => status >= 500)).toEqual([]);
      }
      for (const status of [
        'latest',
        'active',
        'waiting',
        'completed',
        'failed',
        'delayed',
        'prioritized',
        'nothing',
      ]) {
        for (const page of ['1', '0', '-1', '2147483649', '1e15', '1e300', 'Infinity', 'NaN', 'a', '']) {
          const query = `activeQueue=tasks&status=${status}&page=${page}&jobsPerPage=300`;
          expect((await board.ask('GET', `/queues?${query}`)).status).toBeLessThan(500);
        }
      }
    });
  });
}

describeWith({ server: ['RabbitMQ', 5672] }, 'the board on celery, which cannot look into its queue', () => {
  const { createEngine, deleteQueue, rabbitmq } = require('../drivers/fixtures/celery.js');
  const queue = `celery-test-${randomUUID()}`;
  let engine: TaskEngine;
  let board: ServedBoard;

  beforeEach(async () => {
    engine = createEngine({ broker: rabbitmq, queue });
    board = await serveBoard(new TaskEngineAdapter(engine, { description: 'In Python.' }));
  });

  afterEach(async () => {
    await engine.close();
    await deleteQueue(queue);
  });

  it('shows no task, and says in a sentence below its name why', async () => {
    const shown = await board.tab('failed');
    expect(shown.jobs).toEqual([]);
    expect(shown.counts).toMatchObject({ active: 0, waiting: 0, failed: 0 });
    expect(shown.description).toMatch(/^In Python\. celery: "stats\(\)" is not possible: /);
    expect(await board.schedules()).toEqual([]);
  });

  it('answers each button with such a sentence, and none with a failure of the server', async () => {
    const jobId = randomUUID();
    const ids = { queueName: 'tasks', jobId, schedulerId: 'nightly', queueStatus: 'failed' };
    const pressed = await board.pressAll(ids);
    expect(pressed.filter(({ status }) => status >= 500)).toEqual([]);
    expect(await board.ask('PUT', `/queues/tasks/${jobId}/retry`)).toMatchObject({
      status: 405,
      body: { message: expect.stringContaining('celery: "get()" is not possible') },
    });
  });
});
