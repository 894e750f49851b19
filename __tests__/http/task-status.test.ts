// taskStatus(): what a client may know of a stored task.

import type { Express } from 'express';
import { createEngine } from '../../lib/engine/index.js';
import { type TaskEngine, type TaskRecord, taskStatus } from '../../lib/index.js';
import { expresses, serve } from '../fixtures/serve.js';

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

  it("leaves an error of the engine to the application's error handling", async () => {
    const { response, body } = await ask('unreachable');
    expect(response.status).toBe(503);
    expect(body).toEqual({ error: 'the store is away' });
  });
});

interface StatusResponse {
  status(code: number): { json(body: unknown): void };
}

describe('taskStatus() refuses', () => {
  it.each([
    [undefined, undefined, 'the first argument must be an engine, not undefined'],
    [{ get: async () => undefined }, undefined, 'the first argument must be an engine, not {'],
    [engine, { results: true }, 'taskStatus(): unknown option "results"'],
    [engine, { result: 'yes' }, '"result" must be true or false'],
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
