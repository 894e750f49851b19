// Promise 16: what a handler or a task leaves behind keeps no response alive, and after() works from there all the same.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Response } from 'express';
import {
  after,
  type BackgroundTasks,
  type BackgroundTasksOptions,
  backgroundTasks,
  currentTask,
  type ErrorContext,
  type TaskHandle,
  type TaskTrace,
  task,
} from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { collectGarbage, countKept } from '../fixtures/garbage';
import { serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');
const count = 20;

/** What was left behind, as a cache or a pool keeps it. */
const left: unknown[] = [];
const timers: NodeJS.Timeout[] = [];
afterEach(() => {
  left.length = 0;
  for (const timer of timers.splice(0)) clearTimeout(timer);
});

function leaveTimer(): void {
  timers.push(setTimeout(() => {}, 3_600_000));
}

/** A task whose promise somebody keeps, and which never ends. */
function never(): Promise<void> {
  const pending = new Promise<void>(() => {});
  left.push(pending);
  return pending;
}

/** An app whose handler does what the test says, and the requests, their bodies and the responses that it has seen. */
async function serveWatched(handle: (res: Response) => void, options: BackgroundTasksOptions = {}) {
  const refs: WeakRef<object>[] = [];
  const middleware = backgroundTasks({ onError: () => {}, ...options });
  const app = express();
  app.use(middleware);
  app.use(express.json());
  app.post('/', (req, res) => {
    refs.push(new WeakRef(req), new WeakRef(req.body), new WeakRef(res));
    handle(res);
  });
  const { url, server } = await serve(app);
  const headers = { 'content-type': 'application/json' };
  return {
    middleware,
    refs,
    async request(): Promise<void> {
      await (await fetch(url, { method: 'POST', body: '{"a":1}', headers })).text();
    },
    /** Each connection keeps its last request, while it is open. */
    async kept(): Promise<number> {
      server.closeAllConnections();
      return countKept(refs);
    },
  };
}

/** The same for many requests in a row. */
async function keptAfter(handle: (res: Response) => void, options?: BackgroundTasksOptions): Promise<number> {
  const { middleware, refs, request, kept } = await serveWatched(handle, options);
  for (let number = 0; number < count; number++) await request();
  await middleware.idle();
  expect(refs).toHaveLength(3 * count);
  return kept();
}

describe('what a handler leaves behind keeps no request, body or response', () => {
  it.each<[string, () => void]>([
    ['a timer', leaveTimer],
    ['an AsyncResource', () => left.push(new AsyncResource('Pool'))],
    ['a promise that never settles', () => left.push(new Promise(() => {}))],
    ['an await of one', () => left.push((async () => never())())],
    ['a bound callback', () => left.push(AsyncResource.bind(() => {}))],
  ])('%s', async (_title, leave) => {
    const kept = await keptAfter((res) => {
      leave();
      res.send('sent');
    });
    expect(kept).toBe(0);
  });

  it('nor where the middleware is mounted twice', async () => {
    const second = backgroundTasks();
    const kept = await keptAfter((res) => {
      second(res.req, res, leaveTimer);
      res.send('sent');
    });
    expect(kept).toBe(0);
  });
});

describe('what a task leaves behind keeps no request, body or response', () => {
  const ends: [string, () => unknown, BackgroundTasksOptions][] = [
    ['returned', leaveTimer, {}],
    [
      'threw',
      () => {
        leaveTimer();
        throw error;
      },
      {},
    ],
    [
      'resolved',
      async () => {
        await sleep(1);
        leaveTimer();
      },
      {},
    ],
    [
      'was tried again',
      async () => {
        leaveTimer();
        throw error;
      },
      { retries: { limit: 1, minDelay: 1 } },
    ],
    ['was in time', async () => leaveTimer(), { timeout: 60_000 }],
    ['did not end within its time', never, { timeout: 1 }],
    [
      'did not end within its time, its signal read',
      () => {
        left.push(currentTask()?.signal);
        leaveTimer();
        return never();
      },
      { timeout: 1 },
    ],
  ];
  it.each(ends)('that %s', async (_title, run, options) => {
    const kept = await keptAfter((res) => {
      res.locals.backgroundTasks.add(run);
      res.send('sent');
    }, options);
    expect(kept).toBe(0);
  });

  it('that was cancelled, nor those of the request that cancelled it', async () => {
    const running: TaskHandle[] = [];
    const { middleware, refs, request, kept } = await serveWatched((res) => {
      const handle = running.shift();
      if (handle === undefined) {
        running.push(
          res.locals.backgroundTasks.add(async () => {
            leaveTimer();
            const signal = currentTask()?.signal;
            await sleep(60_000, undefined, signal && { signal });
          }),
        );
      } else handle.cancel();
      res.send('sent');
    });
    for (let number = 0; number < count; number++) {
      await request();
      // Before the second request cancels it.
      while (number % 2 === 0 && middleware.stats.running === 0) await sleep(1);
    }
    await middleware.idle();
    expect(middleware.stats.cancelled).toBe(count / 2);
    expect(refs).toHaveLength(3 * count);
    expect(await kept()).toBe(0);
  });

  it('nor its arguments and its result', async () => {
    const refs: WeakRef<object>[] = [];
    const kept = await keptAfter((res) => {
      const argument = {};
      refs.push(new WeakRef(argument));
      res.locals.backgroundTasks.add(async (_argument: object) => {
        leaveTimer();
        const result = {};
        refs.push(new WeakRef(result));
        return result;
      }, argument);
      res.send('sent');
    });
    expect(kept).toBe(0);
    expect(refs).toHaveLength(2 * count);
    expect(await countKept(refs)).toBe(0);
  });

  it('nor what each failed attempt threw', async () => {
    const refs: WeakRef<object>[] = [];
    const { middleware, request } = await serveWatched(
      (res) => {
        res.locals.backgroundTasks.add(async () => {
          leaveTimer();
          const thrown = {};
          refs.push(new WeakRef(thrown));
          throw thrown;
        });
        res.send('sent');
      },
      { retries: { limit: 2, minDelay: 1 } },
    );
    await request();
    await middleware.idle();
    expect(refs).toHaveLength(3);
    expect(await countKept(refs)).toBe(0);
  });
});

describe('the tasks of one response keep no store of another', () => {
  const storage = new AsyncLocalStorage<object>();

  function inStore(fn: () => void): WeakRef<object> {
    const store = {};
    storage.run(store, fn);
    return new WeakRef(store);
  }

  /** The lists of two responses that are over. */
  async function twoLists(options: BackgroundTasksOptions = {}): Promise<[BackgroundTasks, BackgroundTasks]> {
    const { respond } = await serveTasks(options);
    return [await respond((tasks) => tasks), await respond((tasks) => tasks)];
  }

  it('that has asked for the turn in which they begin', async () => {
    const [first, second] = await twoLists();
    const ref = inStore(() => first.add(() => {}));
    const handle = second.add(never);
    while (handle.status !== 'running') await sleep(1);
    expect(await countKept([ref])).toBe(0);
  });

  it('that has asked for the turn in which they went on for ever', async () => {
    const [first, second] = await twoLists();
    let isOver = false;
    const again = async (): Promise<void> => {
      if (!isOver) second.add(again);
    };
    const ref = inStore(() => first.add(() => {}));
    const handle = second.add(again);
    await handle.finished;
    expect(await countKept([ref])).toBe(0);
    isOver = true;
  });

  it('whose slot they have got', async () => {
    const [first, second] = await twoLists({ concurrency: 1 });
    const done = deferred();
    const ref = inStore(() => first.add(() => done.promise));
    const handle = second.add(never);
    done.resolve();
    while (handle.status !== 'running') await sleep(1);
    expect(await countKept([ref])).toBe(0);
  });

  it('that has cancelled the one before', async () => {
    const [, tasks] = await twoLists({ retries: { limit: 1, minDelay: 60_000 } });
    const failing = tasks.add(() => Promise.reject(error));
    const handle = tasks.add(never);
    while (failing.status !== 'running') await sleep(1);
    await sleep(1);
    const ref = inStore(() => failing.cancel());
    while (handle.status !== 'running') await sleep(1);
    expect(await countKept([ref])).toBe(0);
  });
});

describe('after(), the response gone', () => {
  /** A handler that leaves something behind which is called once the response has been collected. */
  async function callLate<T>(late: () => T | Promise<T>, options?: BackgroundTasksOptions) {
    const released = deferred();
    const called = deferred<T>();
    const { middleware, request, kept } = await serveWatched((res) => {
      released.promise.then(async () => late()).then(called.resolve, called.reject);
      res.send('sent');
    }, options);
    await request();
    expect(await kept()).toBe(0);
    released.resolve();
    return { middleware, called: called.promise };
  }

  it('runs the tasks on a list of its own, in order and one at a time', async () => {
    const events: string[] = [];
    const { middleware, called } = await callLate(() => {
      after(async () => {
        events.push('first begins');
        await sleep(2);
        after(() => events.push('third'));
        events.push('first ends');
      });
      after((text: string) => events.push(text), 'second');
    });
    await called;
    await middleware.idle();
    expect(events).toEqual(['first begins', 'first ends', 'second', 'third']);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 3 });
  });

  it('adds again once that list has ended', async () => {
    const { called } = await callLate(async () => {
      await after(() => 1).finished;
      await collectGarbage(() => false, 5);
      return after(() => 2).finished;
    });
    expect(await called).toEqual({ status: 'succeeded', value: 2 });
  });

  it('lists them without a request', async () => {
    const gate = deferred();
    const { middleware, called } = await callLate(() => after(task('waits', () => gate.promise)).id);
    const ageMs = expect.any(Number);
    const id = await called;
    expect(middleware.list()).toMatchObject([{ id, name: 'waits', ageMs, request: undefined }]);
    gate.resolve();
    await middleware.idle();
  });

  it('reports and traces them without req and res', async () => {
    const contexts: ErrorContext[] = [];
    const traces: unknown[] = [];
    const onStart = (trace: unknown): void => void traces.push({ ...(trace as TaskTrace) });
    subscribe('tracing:express-background-tasks:task:start', onStart);
    try {
      const failing = task('failing', async (_argument: string) => Promise.reject(error));
      const onError = (_error: unknown, context: ErrorContext): void => void contexts.push(context);
      const { middleware, called } = await callLate(() => after(failing, 'argument').id, { onError });
      const id = await called;
      await middleware.idle();
      expect(contexts).toStrictEqual([{ task: { id, name: 'failing', attempt: 1 }, args: ['argument'] }]);
      expect(traces).toStrictEqual([{ task: { id, name: 'failing', attempt: 1 }, args: ['argument'] }]);
    } finally {
      unsubscribe('tracing:express-background-tasks:task:start', onStart);
    }
  });

  const unanswerable = expect.objectContaining({
    code: 'ERR_NO_RESPONSE_CONTEXT',
    message:
      'after(): the response is gone, so "when" cannot be asked: add the task before the response ends, or give it when: \'always\'',
  });

  it('throws ERR_NO_RESPONSE_CONTEXT where "when" cannot be asked, and counts no task', async () => {
    const run = jest.fn();
    const { middleware, called } = await callLate(() => {
      expect(() => after(task('success', run, { when: 'success' }))).toThrow(unanswerable);
      expect(() => after(task('asks', run, { when: () => true }))).toThrow(unanswerable);
    });
    await called;
    await middleware.idle();
    expect(run).not.toHaveBeenCalled();
    expect(middleware.stats).toMatchObject({ pending: 0, succeeded: 0, failed: 0 });
  });

  it('does so for the "when" of the middleware too, which a task may override', async () => {
    const { called } = await callLate(
      () => {
        expect(() => after(() => {})).toThrow(unanswerable);
        return after(task('always', () => 'ran', { when: 'always' })).finished;
      },
      { when: 'success' },
    );
    expect(await called).toEqual({ status: 'succeeded', value: 'ran' });
  });

  it('asks "when" of a response that somebody still has', async () => {
    const released = deferred();
    const added = deferred<TaskHandle>();
    const held: Response[] = [];
    const when = jest.fn(() => true);
    const { request } = await serveWatched(
      (res) => {
        held.push(res);
        void released.promise.then(() => added.resolve(after(() => {})));
        res.status(202).send('sent');
      },
      { when },
    );
    await request();
    await collectGarbage(() => false, 5);
    released.resolve();
    expect(await (await added.promise).finished).toMatchObject({ status: 'succeeded' });
    expect(when.mock.calls).toEqual([[{ statusCode: 202, completed: true }]]);
    expect(held).toHaveLength(1);
  });
});

it('waits for a response whose locals were replaced, also behind a garbage collection', async () => {
  const events: string[] = [];
  const { middleware, request } = await serveWatched((res) => {
    Object.assign(res, { locals: {} });
    setTimeout(async () => {
      await collectGarbage(() => false, 5);
      after(() => events.push(`finished: ${res.writableFinished}`));
      setTimeout(() => res.send('sent'), 10);
    }, 1);
  });
  await request();
  await middleware.idle();
  expect(events).toEqual(['finished: true']);
});

it('keeps the lists of two responses apart where one was copied from the other', async () => {
  const lists: unknown[] = [];
  const { middleware, request } = await serveWatched((res) => {
    const copy: Response = Object.assign(Object.create(res), res, { locals: {} });
    middleware(res.req, copy, () => {
      lists.push(res.locals.backgroundTasks, copy.locals.backgroundTasks);
    });
    res.send('sent');
  });
  await request();
  expect(lists[1]).toBeDefined();
  expect(lists[1]).not.toBe(lists[0]);
});

it('restores after() where a library has lost the context before the middleware is mounted again', async () => {
  const ran = jest.fn();
  const tasks: unknown[] = [];
  const outside = new AsyncResource('Outside');
  const middleware = backgroundTasks();
  const again = backgroundTasks();
  const app = express();
  app.use(middleware);
  app.use((_req, res, next) => {
    tasks.push(res.locals.backgroundTasks);
    outside.runInAsyncScope(next);
  });
  app.use(again);
  app.get('/', (_req, res) => {
    tasks.push(res.locals.backgroundTasks);
    after(ran);
    res.send('sent');
  });
  const { url } = await serve(app);
  await (await fetch(url)).text();
  await middleware.idle();
  expect(ran).toHaveBeenCalledTimes(1);
  expect(tasks[1]).toBe(tasks[0]);
  expect(again.stats.succeeded).toBe(0);
});

it('makes locals for a response of a bare http server', async () => {
  const middleware = backgroundTasks();
  const app = express();
  app.use((req, res) => {
    Object.assign(res, { locals: undefined });
    middleware(req, res, () => {
      res.locals.backgroundTasks.add(() => {});
      after(() => {});
      res.end();
    });
  });
  const { url } = await serve(app);
  await (await fetch(url)).text();
  await middleware.idle();
  expect(middleware.stats.succeeded).toBe(2);
});
