// taskStatus(): what a client may know of a stored task.

import type { ServerResponse } from 'node:http';
import type { Express } from 'express';
import { createEngine } from '../../lib/engine/index.js';
import { endEarly } from '../../lib/http/open-answers.js';
import { type TaskEngine, type TaskRecord, task, taskStatus } from '../../lib/index.js';
import { type MemoryEngine, memory } from '../../lib/testing/index.js';
import { expresses, serve } from '../fixtures/serve.js';
import { trackTimeouts } from '../fixtures/timeouts.js';

// Takes the timers of the library from globalThis, where they are counted.
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const times = { enqueuedAt: new Date(1000), startedAt: new Date(2000), finishedAt: new Date(3000) };
const records: TaskRecord[] = [
  { id: 'queued', name: 'resize', state: 'queued', attempts: 0, enqueuedAt: times.enqueuedAt },
  {
    id: 'running',
    name: 'resize',
    state: 'running',
    attempts: 2,
    enqueuedAt: times.enqueuedAt,
    startedAt: times.startedAt,
  },
  { id: 'succeeded', name: 'resize', state: 'succeeded', attempts: 1, result: { width: 200 }, ...times },
  { id: 'failed', name: 'resize', state: 'failed', attempts: 3, error: { name: 'Error', message: 'secret' }, ...times },
];

const engine: TaskEngine = Object.assign(
  createEngine({ name: 'fake', insert: async ({ id }) => id, close: () => {} }),
  {
    get: async (id: string): Promise<TaskRecord | undefined> => {
      if (id === 'unreachable') throw Object.assign(new Error('the store is away'), { status: 503 });
      const [queued] = records;
      if (id === 'talkative' && queued !== undefined) return { ...queued, args: ['secret'], id };
      return records.find((record) => record.id === id);
    },
  },
);

describe.each(expresses)('taskStatus() on Express %s', (_version, express) => {
  function appWith(options?: { result?: boolean }): Express {
    const app = express();
    app.get('/tasks/:id', taskStatus(engine, options));
    app.use((error: { status: number; message: string }, _req: unknown, res: StatusResponse, _next: unknown) => {
      res.status(error.status).json({ error: error.message });
    });
    return app;
  }

  async function ask(id: string, options?: { result?: boolean }): Promise<{ response: Response; body: unknown }> {
    const { url } = await serve(appWith(options));
    const response = await fetch(`${url}/tasks/${id}`);
    return { response, body: await response.json() };
  }

  it.each(['queued', 'running'])('tells of a task that is %s, and when to ask again', async (id) => {
    const { response, body } = await ask(id);
    expect(response.status).toBe(200);
    expect(response.headers.get('retry-after')).toBe('1');
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(body).toEqual(JSON.parse(JSON.stringify(records.find((record) => record.id === id))));
  });

  it('tells of a task that is over with its times, without result or error', async () => {
    for (const id of ['succeeded', 'failed']) {
      const { response, body } = await ask(id);
      expect(response.status).toBe(200);
      expect(response.headers.get('retry-after')).toBeNull();
      expect(response.headers.get('cache-control')).toBe('no-store');
      expect(body).toEqual({
        id,
        name: 'resize',
        state: id,
        attempts: id === 'failed' ? 3 : 1,
        enqueuedAt: '1970-01-01T00:00:01.000Z',
        startedAt: '1970-01-01T00:00:02.000Z',
        finishedAt: '1970-01-01T00:00:03.000Z',
      });
    }
  });

  it('tells result and error where that is asked for', async () => {
    expect((await ask('succeeded', { result: true })).body).toMatchObject({ result: { width: 200 } });
    expect((await ask('failed', { result: true })).body).toMatchObject({ error: { name: 'Error', message: 'secret' } });
    const { body } = await ask('queued', { result: true });
    expect(body).not.toHaveProperty('result');
    expect(body).not.toHaveProperty('error');
    expect((await ask('succeeded', { result: false })).body).not.toHaveProperty('result');
  });

  it('answers 404 for an unknown id, which nobody may cache', async () => {
    const { response, body } = await ask('nobody');
    expect(response.status).toBe(404);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(body).toEqual({ error: 'No such task' });
  });

  it('never tells more than that, whatever else the record of an engine holds', async () => {
    for (const options of [{}, { result: true }]) {
      const { body } = await ask('talkative', options);
      expect(body).toEqual(JSON.parse(JSON.stringify({ ...records[0], id: 'talkative' })));
    }
  });

  it('leaves a response alone that was answered meanwhile', async () => {
    const unhandled = jest.fn();
    process.on('unhandledRejection', unhandled);
    const app = express();
    const errors = jest.fn();
    app.use((_req, res, next) => {
      next();
      res.status(503).end();
    });
    app.get('/tasks/:id', taskStatus(engine));
    app.use((error: unknown, _req: unknown, _res: unknown, _next: unknown) => errors(error));
    const { url } = await serve(app);
    expect((await fetch(`${url}/tasks/queued`)).status).toBe(503);
    await new Promise(setImmediate);
    process.off('unhandledRejection', unhandled);
    expect(unhandled).not.toHaveBeenCalled();
    expect(errors).not.toHaveBeenCalled();
  });

  it.each([true, false])('reads the result only where it is shown: %p', async (result) => {
    const get = jest.spyOn(engine, 'get');
    await ask('succeeded', { result });
    expect(get.mock.calls).toEqual([['succeeded', { result }]]);
    get.mockRestore();
  });

  it("leaves an error of the engine to the application's error handling", async () => {
    const { response, body } = await ask('unreachable');
    expect(response.status).toBe(503);
    expect(body).toEqual({ error: 'the store is away' });
  });
});

interface StatusResponse {
  status(code: number): { json(body: unknown): void };
}

describe.each(expresses)('Prefer: wait on Express %s', (_version, express) => {
  const quick = task('quick', (_secret: string) => ({ made: 1 }));
  let queue: MemoryEngine;
  let url: string;

  beforeEach(async () => {
    queue = memory();
    const app = express();
    app.use((_req, res, next) => {
      open.push(res);
      next();
    });
    app.get('/tasks/:id', taskStatus(queue, { result: true }));
    app.get('/short/:id', taskStatus(queue, { wait: 1 }));
    app.get('/none/:id', taskStatus(queue, { wait: 0 }));
    app.use((error: unknown, _req: unknown, _res: unknown, _next: unknown) => errors(error));
    ({ url } = await serve(app));
  });

  const open: ServerResponse[] = [];
  const errors = jest.fn();

  afterEach(async () => {
    await queue.close();
    expect(errors).not.toHaveBeenCalled();
  });

  async function ask(path: string, prefer: string, init: RequestInit = {}): Promise<Waited> {
    const start = performance.now();
    const response = await fetch(url + path, { ...init, headers: { Prefer: prefer } });
    const body = init.method === 'HEAD' ? undefined : await response.json();
    const { status, headers } = response;
    const applied = headers.get('preference-applied');
    return { status, applied, body, retryAfter: headers.get('retry-after'), ms: performance.now() - start };
  }

  it('waits for the end of the task, and leaves no timer behind', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    const waiting = trackTimeouts();
    const answer = ask(`/tasks/${id}`, 'wait=20');
    await new Promise((resolve) => setTimeout(resolve, 200));
    await queue.drain([quick]);
    const { status, applied, body, retryAfter } = await answer;
    expect({ status, applied, retryAfter }).toEqual({ status: 200, applied: 'wait=20', retryAfter: null });
    expect(body).toMatchObject({ id, state: 'succeeded', result: { made: 1 } });
    expect(JSON.stringify(body)).not.toContain('secret');
    while (waiting() > 0) await new Promise((resolve) => setImmediate(resolve)); // The next look finds no watcher.
  });

  it('answers at once where the task is over, unknown, or where nothing is waited for', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    expect(await ask(`/tasks/${id}`, 'wait=0')).toMatchObject({ applied: 'wait=0', body: { state: 'queued' } });
    expect(await ask(`/none/${id}`, 'wait=10')).toMatchObject({ applied: null, body: { state: 'queued' } });
    expect(await ask(`/tasks/${id}`, 'respond-async')).toMatchObject({ applied: null, body: { state: 'queued' } });
    expect((await ask(`/tasks/${id}`, 'wait=10', { method: 'HEAD' })).applied).toBeNull();
    expect(await ask('/tasks/nobody', 'wait=10')).toMatchObject({ status: 404 });
    await queue.drain([quick]);
    expect(await ask(`/tasks/${id}`, 'wait=10')).toMatchObject({ applied: 'wait=10', body: { state: 'succeeded' } });
  });

  it('answers with what it is after the longest wait', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    const { applied, body, retryAfter, ms } = await ask(`/short/${id}`, 'wait=99999999999999999999');
    expect({ applied, retryAfter }).toEqual({ applied: 'wait=1', retryAfter: '1' });
    expect(body).toMatchObject({ state: 'queued' });
    expect(ms).toBeGreaterThan(900);
  });

  it('answers 404 where the task is removed meanwhile', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    const answer = ask(`/tasks/${id}`, 'wait=20');
    await new Promise((resolve) => setTimeout(resolve, 100));
    await queue.remove(id);
    expect(await answer).toMatchObject({ status: 404, body: { error: 'No such task' } });
  });

  it('answers at once at a shutdown, and not where something else has answered', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    const answer = ask(`/tasks/${id}`, 'wait=20');
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (const res of open.splice(0)) endEarly(res);
    expect(await answer).toMatchObject({ status: 200, body: { state: 'queued' } });

    const other = ask(`/tasks/${id}`, 'wait=20');
    while (open.length === 0) await new Promise(setImmediate);
    await new Promise((resolve) => setTimeout(resolve, 100));
    for (const res of open.splice(0)) res.writeHead(418).end('{}');
    expect(await other).toMatchObject({ status: 418 });
  });

  it('frees all when the client leaves', async () => {
    const { id } = await queue.enqueue(quick, 'secret');
    const watch = jest.spyOn(queue, 'watch');
    const leaving = new AbortController();
    const answer = fetch(`${url}/tasks/${id}`, { headers: { Prefer: 'wait=20' }, signal: leaving.signal });
    while (watch.mock.calls.length === 0) await new Promise(setImmediate);
    leaving.abort();
    await expect(answer).rejects.toThrow();
    while (watch.mock.calls[0]?.[1]?.signal?.aborted !== true) await new Promise(setImmediate);
  });
});

interface Waited {
  status: number;
  applied: string | null;
  retryAfter: string | null;
  body: unknown;
  ms: number;
}

describe('taskStatus() refuses', () => {
  it.each([
    [undefined, undefined, 'taskStatus(): the first argument must be an engine, not undefined'],
    [{ get: async () => undefined }, undefined, 'the first argument must be an engine, not {'],
    [engine, { results: true }, 'taskStatus(): unknown option "results"'],
    [engine, { result: 'yes' }, '"result" must be true or false'],
    [engine, { wait: -1 }, '"wait" must be whole seconds, from 0 to 86400'],
    [engine, { wait: 0.5 }, '"wait" must be whole seconds'],
    [engine, { wait: 30_000_000 }, '"wait" must be whole seconds'],
    [engine, { wait: '30' }, '"wait" must be whole seconds'],
    [engine, null, 'must be an object'],
  ])('%p with %p', (given, options, text) => {
    expect(() => taskStatus(given as TaskEngine, options as object)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining(text),
      }),
    );
  });
});

it('taskStatus() may let clients wait for a day', () => {
  expect(taskStatus(engine, { wait: 86_400 })).toEqual(expect.any(Function));
  expect(() => taskStatus(engine, { wait: 86_401 })).toThrow('"wait" must be whole seconds');
});

describe.each(expresses)('the error that taskStatus() shows on Express %s', (_version, express) => {
  it.each([
    [
      { to: 'ada@example.com', cause: new Error('inner') },
      { name: 'Error', message: 'an object that is no Error' },
    ],
    [
      { name: 'Bounced', message: 'bounced', to: 'ada@example.com' },
      { name: 'Bounced', message: 'bounced' },
    ],
    [[new Error('inner')], { name: 'Error', message: 'an object that is no Error' }],
  ])('has no argument and no stack of what a task throws that is no Error: %j', async (thrown, error) => {
    const fails = task('fails', () => {
      throw thrown;
    });
    const queue = memory();
    const { url } = await serve(express().get('/tasks/:id', taskStatus(queue, { result: true })));
    const { id } = await queue.enqueue(fails);
    await queue.drain([fails], { onError: () => {} });
    const text = await (await fetch(`${url}/tasks/${id}`)).text();
    expect(JSON.parse(text)).toMatchObject({ state: 'failed', error });
    expect(text).not.toMatch(/ada@example|inner| at /);
  });
});
