// The adapters for bull-board, as far as it does not matter which engine is behind them.

import { randomUUID } from 'node:crypto';
import express from 'express';
import { ResponseTasksAdapter, TaskEngineAdapter, type TaskEngineAdapterOptions } from '../../lib/bull-board/index.js';
import { createEngine } from '../../lib/engine/index.js';
import {
  type BackgroundTasksMiddleware,
  backgroundTasks,
  currentTask,
  type TaskEngine,
  type TaskRecord,
  task,
} from '../../lib/index.js';
import { type MemoryEngine, memory } from '../../lib/testing/index.js';
import { send } from '../drivers/fixtures/send.js';
import { Gate } from '../drivers/fixtures/suite-tools.js';
import { serve } from '../fixtures/serve.js';
import { type ServedBoard, serveBoard } from '../fixtures/serve-board.js';

const later = 3_600_000;

let engine: MemoryEngine;

beforeEach(() => {
  engine = memory();
});

afterEach(() => engine.close());

const adapterWith = (options: object): TaskEngineAdapter =>
  new TaskEngineAdapter(engine, options as TaskEngineAdapterOptions);

/** What an engine of another author does otherwise. */
const engineWith = (methods: Partial<TaskEngine>): TaskEngine => Object.assign(memory(), methods);

describe('the options of the adapters', () => {
  it.each([
    ['an engine', () => new TaskEngineAdapter({} as TaskEngine), 'TaskEngineAdapter: the argument must be an engine'],
    ['an engine, not null', () => new TaskEngineAdapter(null as never), 'TaskEngineAdapter: the argument must be an'],
    ['known', () => adapterWith({ title: 'x' }), 'TaskEngineAdapter: unknown option "title"'],
    ['a name with text', () => adapterWith({ name: '' }), '"name" must be a string that is not empty and has no %'],
    ['a name without %', () => adapterWith({ name: '50%' }), '"name" must be a string that is not empty and has no %'],
    ['a boolean', () => adapterWith({ readOnlyMode: 'yes' }), '"readOnlyMode" must be true or false'],
    [
      'a middleware',
      () => new ResponseTasksAdapter(backgroundTasks as never),
      'ResponseTasksAdapter: the argument must be the middleware that backgroundTasks() has returned',
    ],
    [
      'a middleware, not undefined',
      () => new ResponseTasksAdapter(undefined as never),
      'ResponseTasksAdapter: the argument',
    ],
    [
      'known to that adapter',
      () => new ResponseTasksAdapter(backgroundTasks(), { readOnlyMode: false } as object),
      'ResponseTasksAdapter: unknown option "readOnlyMode"',
    ],
  ])('must be %s', (_what, make, message) => {
    expect(make).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
    );
  });

  it('name the queue on the page', async () => {
    const board = await serveBoard(
      adapterWith({ name: 'shop:tasks', displayName: 'Shop', description: 'Mails.', delimiter: ':' }),
    );
    expect(await board.tab('latest')).toMatchObject({
      name: 'shop:tasks',
      displayName: 'Shop',
      description: 'Mails.',
      delimiter: ':',
      readOnlyMode: false,
      allowRetries: true,
      allowCompletedRetries: false,
      type: 'bull',
    });
  });

  it('make a queue that can be looked at and not changed', async () => {
    const { id } = await send(engine, { name: 'nobody', args: [] });
    const board = await serveBoard(adapterWith({ readOnlyMode: true }));
    expect(await board.ids('waiting')).toEqual([id]);
    expect(await board.ask('PUT', `/queues/tasks/${id}/clean`)).toMatchObject({ status: 405 });
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
  });

  it('hide the buttons that retry', async () => {
    const board = await serveBoard(adapterWith({ allowRetries: false }));
    expect(await board.tab('failed')).toMatchObject({ allowRetries: false });
  });
});

describe('TaskEngineAdapter', () => {
  let board: ServedBoard;

  beforeEach(async () => {
    board = await serveBoard(new TaskEngineAdapter(engine));
  });

  it.each([
    [undefined, 0],
    [null, 0],
    [30, 30],
    ['half', 'half'],
    [true, true],
    [{ percent: 50 }, { percent: 50 }],
    [
      [1, 2],
      [1, 2],
    ],
  ])('shows the progress %j as %j', async (value, shown) => {
    const { id } = await send(engine, { name: 'report', args: [] });
    await engine.drain([
      task('report', () => {
        if (value !== undefined) currentTask()?.progress(value);
      }),
    ]);
    expect((await board.job(id)).job.progress).toEqual(shown);
  });

  it('shows the last failure of a task that waits for its retry', async () => {
    const { id } = await send(engine, {
      name: 'fail',
      args: [],
      retries: { limit: 3, minDelay: later, maxDelay: later },
    });
    await engine.drain([
      task('fail', () => {
        throw new Error('not yet');
      }),
    ]);
    expect(await board.job(id)).toMatchObject({
      status: 'delayed',
      job: { failedReason: 'Error: not yet', delay: expect.any(Number), attempts: 1 },
    });
  });

  it('shows an error without a stack, and a schedule without a next time', async () => {
    const id = randomUUID();
    const record: TaskRecord = {
      id,
      name: 'fail',
      state: 'failed',
      attempts: 1,
      error: { name: 'Error', message: 'no stack' },
      enqueuedAt: new Date(),
    };
    const schedule = { name: 'once', cron: '0 0 1 1 * 2020', timeZone: 'UTC', task: 'greet', args: [] };
    const other = engineWith({ get: async () => record, schedules: async () => [schedule] });
    const shown = await serveBoard(new TaskEngineAdapter(other));
    expect((await shown.job(id)).job).toMatchObject({
      failedReason: 'Error: no stack',
      stacktrace: [],
      isFailed: true,
    });
    expect(await shown.schedules()).toEqual([expect.not.objectContaining({ next: expect.anything() })]);
    await other.close();
  });

  it('finds the delayed ones among many that wait, as far as it looks', async () => {
    const delayed = await send(engine, { name: 'nobody', args: [], delay: later });
    const waiting = Array.from({ length: 5000 }, (_, value): [number] => [value]);
    const nobody = task<[number]>('nobody');
    await engine.enqueueMany(nobody, waiting);
    expect(await board.ids('delayed')).toEqual([delayed.id]);
    await engine.enqueueMany(nobody, waiting);
    expect((await board.tab('delayed')).counts.delayed).toBe(1);
    expect(await board.ids('delayed')).toEqual([]); // It looks at 10,000.
    expect(await board.ids('waiting', '&page=1000')).toHaveLength(10);
    expect(await board.ids('waiting', '&page=1001')).toEqual([]);
    expect(await board.ask('PUT', '/queues/tasks/promote')).toMatchObject({ status: 200 });
    expect((await board.tab('delayed')).counts).toMatchObject({ delayed: 0, waiting: 10_001 });
  }, 60_000);

  it('says so where the key of a failed task is live again', async () => {
    const failing = task('fail', () => {
      throw new Error('at first');
    });
    const { id } = await send(engine, { name: 'fail', args: [], key: 'one' });
    await engine.drain([failing], { onError: () => {} });
    await send(engine, { name: 'fail', args: [], key: 'one' });
    expect(await board.ask('PUT', `/queues/tasks/${id}/retry`)).toMatchObject({
      status: 409,
      body: { message: expect.stringContaining('another one with its key waits or runs') },
    });
    expect(await board.ask('PUT', '/queues/tasks/retry/failed')).toMatchObject({ status: 200 });
    expect(await board.ids('failed')).toEqual([id]);
  });

  it('retries all that have failed behind a page of those whose key is live again', async () => {
    const onError = (): void => {};
    const failing = task('fail', () => {
      throw new Error('at first');
    });
    for (let count = 0; count < 3; count++) await engine.enqueue(failing);
    await engine.drain([failing], { onError });
    const keyed = failing.with({ key: 'one' });
    for (let count = 0; count < 101; count++) {
      await engine.enqueue(keyed);
      await engine.drain([failing], { onError });
    }
    await engine.enqueue(keyed);
    expect(await board.ask('PUT', '/queues/tasks/retry/failed')).toMatchObject({ status: 200 });
    expect(await engine.stats()).toMatchObject({ queued: 4, failed: 101 });
  });

  it('says so where a task has changed since the page was drawn', async () => {
    const { id } = await send(engine, { name: 'nobody', args: [] });
    const adapter = new TaskEngineAdapter(engine);
    const job = await adapter.getJob(id);
    await engine.remove(id);
    await expect(job?.promote()).rejects.toMatchObject({
      statusCode: 409,
      message: expect.stringContaining('no longer'),
    });
    await expect(job?.remove()).rejects.toMatchObject({ statusCode: 409, message: expect.stringContaining('gone') });
  });

  it('answers 503, with the reason, while the store is out of reach', async () => {
    await engine.close();
    const message = 'memory: the tasks could not be counted: the engine is closed';
    expect(await board.ask('GET', '/queues?activeQueue=tasks')).toMatchObject({ status: 503, body: { message } });
    expect(await board.ask('PUT', '/queues/tasks/clean/failed')).toMatchObject({ status: 503 });
    expect(await board.ask('GET', `/queues/tasks/${randomUUID()}`)).toMatchObject({ status: 503 });
  });

  it('shows no task of an engine that cannot look into its store, and the other queues all the same', async () => {
    const blind = createEngine({ name: 'blind', insert: async ({ id }) => id, close: () => {} });
    const { id } = await send(engine, { name: 'nobody', args: [] });
    const both = await serveBoard(new TaskEngineAdapter(engine), new TaskEngineAdapter(blind, { name: 'blind' }));
    expect(await both.ids('waiting')).toEqual([id]);
    const { body } = await both.ask('GET', '/queues?activeQueue=blind');
    const description = 'blind: "stats()" is not possible: this engine does not have it';
    expect(body).toMatchObject({
      queues: [{ name: 'tasks' }, { description, jobs: [], jobSchedulerCount: 0 }],
    });
    expect(await both.ask('PUT', '/queues/blind/empty')).toMatchObject({
      status: 405,
      body: { message: 'blind: "remove()" is not possible: this engine does not have it' },
    });
    await blind.close();
  });

  it('passes on what is a mistake of the engine', async () => {
    const other = engineWith({ get: () => Promise.reject(new TypeError('a mistake')) });
    await expect(new TaskEngineAdapter(other).getJob('a')).rejects.toThrow(new TypeError('a mistake'));
    await other.close();
  });

  it.each([
    ['pause', 'Tasks cannot be paused from here: close the workers, and what is queued waits for them'],
    ['resume', 'Tasks are never paused'],
    ['add', 'The board cannot enqueue a task: the application does it, which knows the options of the task'],
    ['concurrency', 'is an option of each worker: work(tasks, { concurrency })'],
  ])('refuses to %s, in a sentence', async (button, sentence) => {
    const method = button === 'add' ? 'POST' : 'PUT';
    const body = { name: 'a', data: {}, concurrency: 1 };
    expect(await board.ask(method, `/queues/tasks/${button}`, body)).toMatchObject({
      status: 405,
      body: { message: expect.stringContaining(sentence) },
    });
  });

  it('refuses to change arguments, in a sentence', async () => {
    const { id } = await send(engine, { name: 'nobody', args: [1] });
    expect(await board.ask('PATCH', `/queues/tasks/${id}/update-data`, { jobData: [2] })).toMatchObject({
      status: 405,
      body: { message: 'The arguments of a stored task cannot be changed: remove it, and enqueue another one' },
    });
  });

  it('refuses also what this version of the board does not ask for', async () => {
    const adapter = new TaskEngineAdapter(engine);
    const calls = [adapter.obliterate(), adapter.updateJobScheduler(), adapter.runJobSchedulerNow()];
    for (const call of calls) await expect(call).rejects.toMatchObject({ name: 'Refusal', statusCode: 405 });
  });
});

describe('ResponseTasksAdapter', () => {
  let tasks: BackgroundTasksMiddleware;
  let board: ServedBoard;
  let gate: Gate;

  beforeEach(async () => {
    gate = new Gate();
    tasks = backgroundTasks();
    const app = express();
    app.use(tasks);
    app.post('/orders', (_req, res) => {
      const { backgroundTasks: added } = res.locals;
      for (const name of ['first', 'second', 'third']) added.add(task(name, () => gate.opened));
      res.json({});
    });
    const { url } = await serve(app);
    await fetch(`${url}/orders?secret=1`, { method: 'POST' });
    board = await serveBoard(new ResponseTasksAdapter(tasks));
  });

  afterEach(async () => {
    gate.open();
    await tasks.close();
  });

  /** The first one may not have begun when the client has its answer. */
  async function active(): Promise<unknown[]> {
    for (;;) {
      const { jobs } = await board.tab('active');
      if (jobs.length > 0) return jobs;
    }
  }

  it('shows what runs after a response and what waits', async () => {
    const [running] = await active();
    expect(running).toMatchObject({ name: 'first', data: { request: 'POST /orders' }, attempts: 1, isFailed: false });
    const shown = await board.tab('waiting');
    expect(shown).toMatchObject({ name: 'responses', statuses: ['latest', 'active', 'waiting'], readOnlyMode: true });
    expect(shown.counts).toMatchObject({ active: 1, waiting: 2, completed: 0, failed: 0 });
    expect(shown.jobs.map(({ name }) => name)).toEqual(['second', 'third']);
    expect(await board.ids('waiting', '&page=2&jobsPerPage=1')).toEqual([shown.jobs[1]?.id]);
    expect(await board.job(String(shown.jobs[0]?.id))).toMatchObject({ status: 'waiting', job: { name: 'second' } });
    gate.open();
    await tasks.idle();
    expect(await board.ids('latest')).toEqual([]);
  });

  it('has no button that would change anything', async () => {
    await active();
    const [jobId] = (await board.ids('active')).map(String);
    for (const id of [jobId ?? '', 'unknown']) {
      const ids = { queueName: 'responses', jobId: id, schedulerId: 'a', queueStatus: 'failed' };
      const pressed = await board.pressAll(ids);
      expect(pressed.filter(({ status }) => status >= 500)).toEqual([]);
      const changing = pressed.filter(({ route }) => !/^get|queues\/(pause|resume)$/.test(route));
      expect(changing.filter(({ status }) => status !== 405 && status !== 400)).toEqual([]);
    }
    expect(tasks.stats).toMatchObject({ running: 1, pending: 2 });
  });

  it('refuses also what a board that reads only does not ask for', async () => {
    await active();
    const adapter = new ResponseTasksAdapter(tasks, { name: 'here' });
    expect(adapter.getName()).toBe('here');
    const [job] = await adapter.getJobs(['active'], 0, 9);
    const calls = [job?.retry(), adapter.clean('failed'), adapter.empty(), adapter.promoteAll()];
    for (const call of calls) await expect(call).rejects.toMatchObject({ statusCode: 405 });
    expect(await adapter.removeJobScheduler('a')).toBe(false);
  });
});
