// after() and currentTask(): what code finds out about where it runs.

import { AsyncLocalStorage } from 'node:async_hooks';
import { EventEmitter } from 'node:events';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { after, type BackgroundTasks, backgroundTasks, currentTask, type TaskHandle, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { expresses, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');

/** What currentTask() says, read at once. */
function seen(): [id: string, name: string, attempt: number, aborted: boolean] | undefined {
  const current = currentTask();
  return current && [current.id, current.name, current.attempt, current.signal.aborted];
}

describe.each(expresses)('after() in Express %s', (_version, express) => {
  it('adds to the response being handled, from deep in the call tree', async () => {
    const middleware = backgroundTasks();
    const app = express();
    app.use(middleware);
    const events: string[] = [];
    async function deepest(name: string): Promise<void> {
      await new Promise((resolve) => setTimeout(resolve, 1));
      await promisify(process.nextTick)();
      await setImmediate();
      after((arg: string) => events.push(`task of ${arg}`), name);
    }
    const service = { call: async (name: string): Promise<void> => deepest(name) };
    app.get('/:name', async (req, res) => {
      await service.call(req.params.name);
      events.push('answered');
      res.send('sent');
    });
    const { url } = await serve(app);
    await (await fetch(`${url}/a`)).text();
    await middleware.idle();
    expect(events).toEqual(['answered', 'task of a']);
  });

  it('works behind express.json()', async () => {
    const middleware = backgroundTasks();
    const app = express();
    app.use(middleware);
    app.use(express.json());
    const ran = jest.fn();
    app.post('/', (req, res) => {
      after(ran, req.body);
      res.send('sent');
    });
    const { url } = await serve(app);
    // Larger than one chunk, so that the body is read in several turns of the event loop.
    const body = { text: 'x'.repeat(90_000) };
    await (
      await fetch(url, {
        method: 'POST',
        body: JSON.stringify(body),
        headers: { 'content-type': 'application/json' },
      })
    ).text();
    await middleware.idle();
    expect(ran).toHaveBeenCalledTimes(1);
    expect(ran).toHaveBeenCalledWith(body);
  });

  it('works in routers, mounted apps and error handlers', async () => {
    const middleware = backgroundTasks();
    const app = express();
    app.use(middleware);
    const events: string[] = [];
    const router = express.Router();
    router.use((_req, _res, next) => {
      after(() => events.push('router'));
      next();
    });
    const mounted = express();
    mounted.get('/', () => {
      after(() => events.push('mounted'));
      throw error;
    });
    router.use('/mounted', mounted);
    app.use('/router', router);
    app.use(((_error, _req, res, _next) => {
      after(() => events.push('error handler'));
      res.status(500).send('failed');
    }) as import('express').ErrorRequestHandler);
    const { url } = await serve(app);
    await (await fetch(`${url}/router/mounted`)).text();
    await middleware.idle();
    expect(events).toEqual(['router', 'mounted', 'error handler']);
  });

  it('does not mix concurrent requests', async () => {
    const middleware = backgroundTasks();
    const app = express();
    app.use(middleware);
    const lists = new Map<string, BackgroundTasks>();
    const added: [name: string, list: unknown][] = [];
    const arrived = deferred();
    const ran: string[] = [];
    let waiting = 0;
    app.get('/:name', async (req, res) => {
      const { name } = req.params;
      const tasks = res.locals.backgroundTasks;
      lists.set(name, tasks);
      const add = jest.spyOn(tasks, 'add').mockImplementation(((...args: never[]) => {
        added.push([name, tasks]);
        add.mockRestore();
        return (tasks.add as (...rest: never[]) => TaskHandle)(...args);
      }) as typeof tasks.add);
      if (++waiting === 20) arrived.resolve();
      await arrived.promise; // Settled in the context of the last request.
      after(() => ran.push(name));
      res.send('sent');
    });
    const { url } = await serve(app);
    const names = Array.from({ length: 20 }, (_, index) => `r${index}`);
    await Promise.all(names.map(async (name) => (await fetch(`${url}/${name}`)).text()));
    await middleware.idle();
    expect(added).toHaveLength(20);
    for (const [name, list] of added) expect(list).toBe(lists.get(name));
    expect(ran.sort()).toEqual(names.sort());
  });
});

describe('after()', () => {
  it('returns the handle, checks the task and takes what task() defines', async () => {
    const { middleware, respond } = await serveTasks();
    const handle = await respond(() => {
      expect(() => after(undefined as never)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_TASK' }));
      return after(
        task('named', (a: number, b: number) => a + b),
        1,
        2,
      );
    });
    expect(handle.name).toBe('named');
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 3 });
    await middleware.idle();
  });

  it('adds to the end of the list from inside a task', async () => {
    const { middleware, respond } = await serveTasks();
    const events: string[] = [];
    await respond((tasks) => {
      tasks.add(async () => {
        await sleep(1);
        after(() => {
          events.push('third');
          after(() => events.push('fourth'));
        });
        events.push('first');
      });
      tasks.add(() => events.push('second'));
    });
    await middleware.idle();
    expect(events).toEqual(['first', 'second', 'third', 'fourth']);
  });

  it('starts an ended list again from what a task has left running', async () => {
    const { middleware, respond } = await serveTasks();
    const released = deferred();
    const added = deferred<TaskHandle>();
    await respond((tasks) =>
      tasks.add(() => {
        void released.promise.then(() => added.resolve(after(() => 'late')));
      }),
    );
    await middleware.idle();
    released.resolve();
    const handle = await added.promise;
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'late' });
    expect(middleware.stats.succeeded).toBe(2);
  });

  it('adds in onError, at once and after an await', async () => {
    const events: string[] = [];
    const { middleware, respond } = await serveTasks({
      onError: async () => {
        after(() => events.push('at once'));
        await sleep(1);
        after(() => events.push('later'));
      },
    });
    await respond((tasks) =>
      tasks.add(() => {
        throw error;
      }),
    );
    await middleware.idle();
    expect(events).toEqual(['at once', 'later']);
  });

  it.each(['task', 'when'])(
    'adds in onError what runs with stopOnError too, after a %s that throws',
    async (thrower) => {
      const handles: TaskHandle[] = [];
      const { middleware, respond } = await serveTasks({
        stopOnError: true,
        when: () => {
          if (thrower === 'when') throw error;
          return true;
        },
        onError: () => {
          handles.push(after(task('compensate', () => 'compensated', { when: 'always' })));
        },
      });
      await respond((tasks) => {
        tasks.add(() => Promise.reject(error));
        tasks.add(() => {});
      });
      await middleware.idle();
      expect(handles.map(({ status }) => status)).toEqual(['succeeded']);
      expect(middleware.stats).toMatchObject({ succeeded: 1, failed: 1, skipped: 1 });
    },
  );

  it('adds in the listeners of the response', async () => {
    const { middleware, respond } = await serveTasks();
    const ran = deferred();
    await respond((_tasks, res) => {
      res.once('finish', () => after(() => ran.resolve()));
    });
    await ran.promise;
    await middleware.idle();
  });

  it('throws ERR_NO_RESPONSE_CONTEXT outside, and says what to do', async () => {
    expect(() => after(() => {})).toThrow(
      expect.objectContaining({
        code: 'ERR_NO_RESPONSE_CONTEXT',
        message: expect.stringMatching(/mount backgroundTasks\(\) before .* res\.locals\.backgroundTasks/),
      }),
    );
    const { middleware, respond } = await serveTasks();
    const bus = new EventEmitter();
    let afterwards: unknown;
    bus.on('outside', () => {
      try {
        after(() => {});
      } catch (thrown) {
        afterwards = thrown;
      }
    });
    await respond((tasks) => tasks.add(() => {}));
    await middleware.idle();
    bus.emit('outside');
    expect(afterwards).toMatchObject({ code: 'ERR_NO_RESPONSE_CONTEXT' });
  });

  it('throws ERR_NO_RESPONSE_CONTEXT before the middleware', async () => {
    const app = expresses[0]?.[1]();
    if (app === undefined) throw new Error('no Express');
    let thrown: unknown;
    app.get('/', (_req, res) => {
      try {
        after(() => {});
      } catch (caught) {
        thrown = caught;
      }
      res.send('sent');
    });
    app.use(backgroundTasks());
    const { url } = await serve(app);
    await (await fetch(url)).text();
    expect(thrown).toMatchObject({ code: 'ERR_NO_RESPONSE_CONTEXT' });
  });
});

describe('currentTask()', () => {
  it('is undefined outside of tasks', async () => {
    expect(currentTask()).toBeUndefined();
    const { middleware, respond } = await serveTasks();
    const inHandler = await respond((tasks) => {
      const before = currentTask();
      tasks.add(() => {});
      return [before, currentTask()];
    });
    await middleware.idle();
    expect(inHandler).toEqual([undefined, undefined]);
    expect(currentTask()).toBeUndefined();
  });

  it('tells id, name, attempt and signal through every await', async () => {
    const { middleware, respond } = await serveTasks();
    const all: unknown[] = [];
    const emitter = new EventEmitter();
    const handle = await respond((tasks) =>
      tasks.add(async function deep() {
        all.push(seen());
        await null;
        all.push(seen());
        await sleep(1);
        all.push(seen());
        await setImmediate();
        all.push(seen());
        await promisify(process.nextTick)();
        all.push(seen());
        await (async () => {
          await sleep(1);
          all.push(seen());
        })();
        await new Promise<void>((resolve) => {
          emitter.once('event', () => {
            all.push(seen());
            resolve();
          });
          emitter.emit('event');
        });
        // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
        await { then: (resolve: () => void) => resolve() };
        all.push(seen());
      }),
    );
    await middleware.idle();
    expect(all).toEqual(Array(8).fill([handle.id, 'deep', 1, false]));
  });

  it('does not mix tasks that run side by side', async () => {
    const { middleware, respond } = await serveTasks();
    const wrong: unknown[] = [];
    const handles = await Promise.all(
      Array.from({ length: 10 }, (_, index) =>
        respond((tasks) =>
          tasks.add(
            task(`t${index}`, async () => {
              const id = currentTask()?.id;
              for (let turn = 0; turn < 5; turn++) {
                await sleep(turn % 2);
                if (currentTask()?.name !== `t${index}` || currentTask()?.id !== id) wrong.push(seen());
              }
              return id;
            }),
          ),
        ),
      ),
    );
    await middleware.idle();
    expect(wrong).toEqual([]);
    for (const handle of handles) expect(await handle.finished).toEqual({ status: 'succeeded', value: handle.id });
  });

  it('tells each task of a list about itself, also one that a task has added', async () => {
    const { middleware, respond } = await serveTasks();
    const names: unknown[] = [];
    await respond((tasks) => {
      tasks.add(
        task('outer', () => {
          tasks.add(task('inner', () => names.push(currentTask()?.name)));
          names.push(currentTask()?.name);
        }),
      );
      tasks.add(task('next', () => names.push(currentTask()?.name)));
    });
    await middleware.idle();
    expect(names).toEqual(['outer', 'next', 'inner']);
  });

  it('is still there for what a task has left running, once the task is over', async () => {
    const { middleware, respond } = await serveTasks();
    const released = deferred();
    const late = deferred<unknown>();
    const handle = await respond((tasks) =>
      tasks.add(
        task('over', () => {
          void released.promise.then(() => late.resolve(seen()));
        }),
      ),
    );
    await middleware.idle();
    released.resolve();
    expect(await late.promise).toEqual([handle.id, 'over', 1, false]);
  });
});

describe('promise 8: context', () => {
  const store = new AsyncLocalStorage<string>();

  it.each(['timeout', 'cancel()', 'close()'] as const)(
    'gives the listeners of a signal that of their task, at a %s',
    async (abortedBy) => {
      const { middleware, open } = await serveTasks(abortedBy === 'timeout' ? { timeout: 20 } : {});
      const heard: unknown[] = [];
      const ran: unknown[] = [];
      const responses = await Promise.all(
        ['a', 'b', 'c'].map((name) =>
          open((tasks, res) =>
            store.run(name, () =>
              tasks.add(async function waits() {
                await new Promise<void>((resolve) => {
                  currentTask()?.signal.addEventListener('abort', () => {
                    heard.push([name, store.getStore(), currentTask()?.name]);
                    if (abortedBy !== 'close()') after(() => ran.push([name, res.locals.backgroundTasks === tasks]));
                    resolve();
                  });
                });
              }),
            ),
          ),
        ),
      );
      await Promise.all(responses.map((response) => response.end()));
      while (middleware.stats.running < 3 && heard.length < 3) await sleep(1);
      if (abortedBy === 'cancel()') for (const { added } of responses) added.cancel();
      if (abortedBy === 'close()') await middleware.close({ timeout: 0 });
      await middleware.idle();
      expect(heard.sort()).toEqual(['a', 'b', 'c'].map((name) => [name, name, 'waits']));
      expect(ran).toHaveLength(abortedBy === 'close()' ? 0 : 3);
    },
  );

  it('gives a task the stores of its own add(), on each attempt', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const all: unknown[] = [];
    await respond((tasks) => {
      for (const name of ['a', 'b']) {
        store.run(name, () =>
          tasks.add(async () => {
            all.push([name, store.getStore()]);
            await sleep(1);
            all.push([name, store.getStore()]);
            if (currentTask()?.attempt === 1) throw error;
          }),
        );
      }
      tasks.add(() => {
        all.push([undefined, store.getStore()]);
      });
    });
    await middleware.idle();
    expect(all).toHaveLength(9);
    for (const [expected, actual] of all as unknown[][]) expect(actual).toBe(expected);
  });

  it('gives onError and "when" those stores too, whatever ran before', async () => {
    const inHooks: unknown[] = [];
    const { middleware, respond } = await serveTasks({
      concurrency: 1,
      when: ({ statusCode }) => {
        inHooks.push(['when', statusCode, store.getStore(), currentTask()?.name]);
        return true;
      },
      onError: (thrown) => {
        inHooks.push(['onError', thrown, store.getStore(), currentTask()?.name]);
      },
    });
    const begun = deferred();
    const released = deferred();
    const first = respond((tasks, res) => {
      res.status(201);
      store.run('first', () =>
        tasks.add(async () => {
          begun.resolve();
          await released.promise;
          throw 1;
        }),
      );
    });
    await begun.promise;
    await first;
    await respond((tasks, res) => {
      res.status(202);
      store.run('second', () => tasks.add(() => Promise.reject(2)));
    });
    released.resolve(); // The second list starts where the first one ends.
    await middleware.idle();
    expect(inHooks).toEqual([
      ['when', 201, 'first', undefined],
      ['onError', 1, 'first', undefined],
      ['when', 202, 'second', undefined],
      ['onError', 2, 'second', undefined],
    ]);
  });

  it('is no task\'s in the "when" and the report of a task that another one added', async () => {
    const inHooks: unknown[] = [];
    const { middleware, respond } = await serveTasks({
      onError: () => void inHooks.push(['onError', store.getStore(), currentTask()?.name]),
    });
    const when = (): boolean => inHooks.push(['when', store.getStore(), currentTask()?.name]) > 0;
    const added = task('added', () => Promise.reject(error), { when });
    await respond((tasks) =>
      tasks.add(async function adds() {
        store.run('inner', () => tasks.add(added));
        await setImmediate();
        store.run('later', () => after(added));
      }),
    );
    await middleware.idle();
    expect(inHooks).toEqual([
      ['when', 'inner', undefined],
      ['onError', 'inner', undefined],
      ['when', 'later', undefined],
      ['onError', 'later', undefined],
    ]);
  });

  it('gives what the task left running the stores of the task', async () => {
    const { middleware, respond } = await serveTasks();
    const late = deferred<unknown>();
    await respond((tasks) =>
      store.run('kept', () =>
        tasks.add(() => {
          setTimeout(() => late.resolve(store.getStore()), 2);
        }),
      ),
    );
    await middleware.idle();
    expect(await late.promise).toBe('kept');
  });
});
