// cancelTask(): a client stops a stored task.

import { cancelTask, currentTask, type TaskEngine, task, taskStatus } from '../../lib/index.js';
import { type MemoryEngine, memory } from '../../lib/testing/index.js';
import { deferred } from '../fixtures/deferred.js';
import { expresses, serve } from '../fixtures/serve.js';

const quick = task('quick', (_secret: string) => 'done');

interface Failure {
  code: string;
  message: string;
}

describe.each(expresses)('cancelTask() on Express %s', (_version, express) => {
  let engine: MemoryEngine;
  let url: string;

  beforeEach(async () => {
    engine = memory();
    const app = express();
    app.get('/tasks/:id', taskStatus(engine));
    app.delete('/tasks/:id', cancelTask(engine));
    app.use('/any/:id', cancelTask(engine), (_req, res) => {
      res.send('the next handler');
    });
    app.use('/both/:id', taskStatus(engine), cancelTask(engine));
    app.all('/named/:task', taskStatus(engine), cancelTask(engine));
    app.use('/named', (error: Failure, _req: unknown, res: { send(text: string): void }, _next: unknown) =>
      res.send(`${error.code}: ${error.message}`),
    );
    app.use((error: { status: number }, _req: unknown, res: { sendStatus(code: number): void }, _next: unknown) =>
      res.sendStatus(error.status),
    );
    ({ url } = await serve(app));
  });

  afterEach(() => engine.close());

  const remove = (path: string, init: RequestInit = {}) => fetch(url + path, { method: 'DELETE', ...init });

  it('answers 204 for a queued task, which never runs', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const response = await remove(`/tasks/${id}`);
    expect(response.status).toBe(204);
    expect(response.headers.get('cache-control')).toBe('no-store');
    expect(await response.text()).toBe('');
    await engine.drain([quick]);
    expect(await engine.get(id)).toMatchObject({ state: 'cancelled', attempts: 0 });
  });

  it('answers 202 for a running task, whose signal is aborted', async () => {
    const began = deferred();
    const aborted = deferred<unknown>();
    const slow = task('slow', async () => {
      const signal = currentTask()?.signal;
      began.resolve();
      await new Promise((_, reject) => signal?.addEventListener('abort', () => reject(signal.reason))).catch(
        (reason) => {
          aborted.resolve(reason.name);
          throw reason;
        },
      );
    });
    const { id } = await engine.enqueue(slow);
    await engine.work([slow]);
    await began.promise;
    const response = await remove(`/tasks/${id}`);
    expect(response.status).toBe(202);
    expect(await response.json()).toEqual({ message: 'The task was told to stop' });
    expect(await aborted.promise).toBe('AbortError');
  });

  it('answers 409 for a task that is over, and 404 for an unknown one', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    await engine.drain([quick]);
    const over = await remove(`/tasks/${id}`);
    expect(over.status).toBe(409);
    expect(await over.json()).toEqual({ error: 'The task is over' });
    for (const unknown of ['nobody', '00000000-0000-4000-8000-000000000000', '%00', 'x'.repeat(5000)]) {
      const response = await remove(`/tasks/${unknown}`, { body: 'x'.repeat(100_000) });
      expect(response.status).toBe(404);
      expect(response.headers.get('cache-control')).toBe('no-store');
      expect(await response.json()).toEqual({ error: 'No such task' });
    }
  });

  it('is reached behind taskStatus(), which answers GET and HEAD only', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    expect(await (await fetch(`${url}/both/${id}`)).json()).toMatchObject({ id, state: 'queued' });
    expect(await fetch(`${url}/both/${id}`, { method: 'HEAD' })).toMatchObject({ status: 200 });
    expect(await remove(`/both/${id}`)).toMatchObject({ status: 204 });
  });

  it('says so where the path has no parameter "id", and so does taskStatus()', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const message = 'its path must have a parameter "id", as in /tasks/:id';
    expect(await (await remove(`/named/${id}`)).text()).toBe(`ERR_INVALID_OPTION: cancelTask(): ${message}`);
    expect(await (await fetch(`${url}/named/${id}`)).text()).toBe(`ERR_INVALID_OPTION: taskStatus(): ${message}`);
  });

  it('never cancels by GET, HEAD or OPTIONS, also where it is mounted for all methods', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    expect(await (await fetch(`${url}/any/${id}`)).text()).toBe('the next handler');
    expect((await fetch(`${url}/any/${id}`, { method: 'HEAD' })).status).toBe(200);
    await fetch(`${url}/any/${id}`, { method: 'OPTIONS' });
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
    expect((await fetch(`${url}/any/${id}`, { method: 'POST' })).status).toBe(204);
  });

  it("leaves an error of the engine to the application's error handling", async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    await engine.close();
    expect((await remove(`/tasks/${id}`)).status).toBe(503);
  });

  it('leaves a response alone that was answered meanwhile', async () => {
    const app = express();
    app.use((_req, res, next) => {
      next();
      res.status(418).end();
    });
    app.delete('/tasks/:id', cancelTask(engine));
    const errors = jest.fn();
    app.use((error: unknown, _req: unknown, _res: unknown, _next: unknown) => errors(error));
    const { id } = await engine.enqueue(quick, 'secret');
    const served = await serve(app);
    expect((await fetch(`${served.url}/tasks/${id}`, { method: 'DELETE' })).status).toBe(418);
    expect(await engine.get(id)).toMatchObject({ state: 'cancelled' });
    await new Promise(setImmediate);
    expect(errors).not.toHaveBeenCalled();
  });
});

it('cancelTask() refuses what is no engine', () => {
  expect(() => cancelTask({} as TaskEngine)).toThrow(
    expect.objectContaining({
      code: 'ERR_INVALID_OPTION',
      message: 'cancelTask(): the first argument must be an engine, not {}',
    }),
  );
});
