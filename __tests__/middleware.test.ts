// The middleware as Express sees it, and what hangs on it: idle() and stats.

import { once } from 'node:events';
import { IncomingMessage, ServerResponse } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import express5, { type NextFunction, type Request, type Response } from 'express';
import { backgroundTasks } from '../lib/index';
import { deferred } from './fixtures/deferred';
import { expresses, openSocket, serve } from './fixtures/serve';
import { serveTasks } from './fixtures/serve-tasks';

const zero = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };

function neverMind(): void {}

describe.each(expresses)('the middleware (Express %s)', (_version, express) => {
  it('attaches the list and does nothing else', async () => {
    const app = express();
    const seen: unknown[] = [];
    const snapshot = (req: Request, res: Response, next: NextFunction): void => {
      seen.push([Object.keys(req), Object.keys(res), res.getHeaders(), Object.keys(res.locals)]);
      next();
    };
    app.use(snapshot, backgroundTasks(), snapshot);
    app.get('/', (_req, res) => {
      res.send('sent');
    });
    const { url } = await serve(app);
    const response = await fetch(url);
    expect(await response.text()).toBe('sent');
    const [[req, res, headers, locals], after] = seen as [unknown[], unknown[]];
    expect(after).toEqual([req, res, headers, [...(locals as string[]), 'backgroundTasks']]);
  });

  it('calls next synchronously, once, and passes nothing', () => {
    const next = jest.fn();
    const res = { locals: {} } as Response;
    backgroundTasks()({} as Request, res, next);
    expect(next.mock.calls).toEqual([[]]);
  });

  it('lets an error of a later middleware pass', async () => {
    const app = express();
    app.use(backgroundTasks());
    app.get('/', () => {
      throw new Error('from the handler');
    });
    app.use((error: Error, _req: Request, res: Response, _next: NextFunction) => {
      res.status(500).send(error.message);
    });
    const { url } = await serve(app);
    expect(await (await fetch(url)).text()).toBe('from the handler');
  });

  it('promise 14: mounted without its call, it says so at the first request', async () => {
    const app = express();
    app.use(backgroundTasks as never);
    app.use((error: { code: string; message: string }, _req: Request, res: Response, _next: NextFunction) => {
      res.json({ code: error.code, message: error.message });
    });
    const { url } = await serve(app);
    expect(await (await fetch(url)).json()).toEqual({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('write app.use(backgroundTasks()), not app.use(backgroundTasks)'),
    });
  });

  it('counts by itself, also beside another one in the same app', async () => {
    const [first, second] = [backgroundTasks(), backgroundTasks()];
    const app = express();
    const handler = (_req: Request, res: Response): void => {
      res.locals.backgroundTasks.add(neverMind);
      res.send('sent');
    };
    app.get('/first', first, handler);
    app.get('/second', second, handler);
    const { url } = await serve(app);
    await (await fetch(`${url}/first`)).text();
    await first.idle();
    expect(first.stats).toEqual({ ...zero, succeeded: 1 });
    expect(second.stats).toEqual(zero);
  });
});

it('gives a list of its own to a response that is handled within the handling of another one', async () => {
  const middleware = backgroundTasks();
  const app = express5();
  const lists: unknown[] = [];
  const inner = express5();
  inner.use(middleware, (_req, res) => {
    lists.push(res.locals.backgroundTasks);
    res.send('inner');
  });
  app.use(middleware, (req, res) => {
    lists.push(res.locals.backgroundTasks);
    const request = Object.assign(new IncomingMessage(req.socket), { method: 'GET', url: '/' });
    inner(request, new ServerResponse(request));
    res.send('outer');
  });
  const { url } = await serve(app);
  await (await fetch(url)).text();
  expect(lists).toHaveLength(2);
  expect(lists[0]).not.toBe(lists[1]);
});

describe('stats', () => {
  it('counts each task where it is', async () => {
    const { middleware, respond, open } = await serveTasks({
      when: ({ statusCode }) => statusCode === 200,
    });
    expect(middleware.stats).toEqual(zero);
    const pending = await open((tasks) => {
      tasks.add(neverMind);
      tasks.add(() => Promise.reject(new Error('boom')));
      tasks.add(neverMind).cancel();
    });
    expect(middleware.stats).toEqual({ ...zero, pending: 2, cancelled: 1 });
    const [started, done] = [deferred(), deferred()];
    await respond((tasks) => {
      tasks.add(() => {
        started.resolve();
        return done.promise;
      });
      tasks.add(neverMind);
    });
    await started.promise;
    expect(middleware.stats).toEqual({ ...zero, pending: 3, running: 1, cancelled: 1 });
    done.resolve();
    await pending.end();
    await middleware.idle();
    expect(middleware.stats).toEqual({ ...zero, succeeded: 3, failed: 1, cancelled: 1 });
    await respond((tasks, res) => {
      res.status(404);
      tasks.add(neverMind);
    });
    await middleware.idle();
    expect(middleware.stats).toEqual({ ...zero, succeeded: 3, failed: 1, cancelled: 1, skipped: 1 });
  });

  it('is the state of its moment, and no way to change it', async () => {
    const { middleware, respond } = await serveTasks();
    const before = middleware.stats;
    await respond((tasks) => tasks.add(neverMind));
    await middleware.idle();
    expect(before).toEqual(zero);
    Object.assign(middleware.stats, { succeeded: 100 });
    expect(middleware.stats).toEqual({ ...zero, succeeded: 1 });
    expect(() => Object.assign(middleware, { stats: before })).toThrow(TypeError);
  });
});

describe('idle()', () => {
  it('resolves at once where nothing was ever added', async () => {
    await expect(backgroundTasks().idle()).resolves.toBeUndefined();
  });

  it('waits for tasks of responses that are still being sent, for all of its callers', async () => {
    const { middleware, open } = await serveTasks();
    const task = jest.fn();
    const response = await open((tasks) => tasks.add(task));
    const calls: number[] = [];
    const idle = [middleware.idle(), middleware.idle()].map(async (promise) => {
      await promise;
      calls.push(task.mock.calls.length);
    });
    await turn();
    expect(calls).toEqual([]);
    await response.end();
    await Promise.all(idle);
    expect(calls).toEqual([1, 1]);
  });

  it('waits for tasks that tasks add', async () => {
    const { middleware, respond } = await serveTasks();
    let depth = 0;
    await respond((tasks, res) => {
      const deeper = async (): Promise<void> => {
        await turn();
        depth++;
        if (depth < 10) res.locals.backgroundTasks.add(deeper);
      };
      tasks.add(deeper);
    });
    await middleware.idle();
    expect(depth).toBe(10);
  });

  it('resolves when the last pending task is cancelled', async () => {
    const { middleware, open } = await serveTasks();
    const { added, end } = await open((tasks) => tasks.add(neverMind));
    const idle = middleware.idle();
    added.cancel();
    await idle;
    await end();
    expect(middleware.stats).toEqual({ ...zero, cancelled: 1 });
  });

  it('waits anew after it was idle', async () => {
    const { middleware, respond } = await serveTasks();
    for (const count of [1, 2, 3]) {
      await respond((tasks) => tasks.add(turn));
      await middleware.idle();
      expect(middleware.stats.succeeded).toBe(count);
    }
  });

  it('resolves though the client has left', async () => {
    const middleware = backgroundTasks();
    const app = express5().use(middleware);
    const arrived = deferred<Response>();
    app.get('/', (_req, res) => {
      res.locals.backgroundTasks.add(neverMind);
      arrived.resolve(res);
    });
    const { port } = await serve(app);
    const socket = await openSocket(port);
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    const closed = once(await arrived.promise, 'close');
    socket.destroy();
    await closed;
    await middleware.idle();
    expect(middleware.stats).toEqual({ ...zero, succeeded: 1 });
  });
});
