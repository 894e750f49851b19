// Promises 2, 3, 7, 8 and 9, and stopOnError: how tasks follow one another.

import { AsyncLocalStorage } from 'node:async_hooks';
import { once } from 'node:events';
import { Agent, type IncomingMessage, request } from 'node:http';
import { setImmediate as turn } from 'node:timers/promises';
import type { Request, Response } from 'express';
import { backgroundTasks, type TaskHandle } from '../../lib/index';
import { cpuTime } from '../fixtures/cpu-time';
import { deferred } from '../fixtures/deferred';
import { expresses, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const zero = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };

function neverMind(): void {}

function thenable(value: unknown): object {
  const settle = (resolve: (value: unknown) => void): void => {
    setImmediate(resolve, value);
  };
  return Object.defineProperty({}, 'then', { value: settle });
}

afterEach(() => {
  jest.restoreAllMocks();
});

describe.each(expresses)('promise 2: in order, one at a time (Express %s)', (_version, express) => {
  it('runs synchronous and asynchronous tasks in the order of their adds, each after the one before has ended', async () => {
    const { middleware, respond } = await serveTasks({}, express);
    const log: string[] = [];
    const kinds: Record<string, (name: string) => unknown> = {
      sync: (name) => void log.push(`${name} begins`, `${name} ends`),
      async: async (name) => {
        log.push(`${name} begins`);
        await turn();
        await turn();
        log.push(`${name} ends`);
      },
      resolved: async (name) => void log.push(`${name} begins`, `${name} ends`),
      thenable: (name) => {
        log.push(`${name} begins`);
        const ends = (resolve: () => void): void => {
          setImmediate(() => {
            log.push(`${name} ends`);
            resolve();
          });
        };
        return Object.defineProperty({}, 'then', { value: ends });
      },
      throws: (name) => {
        log.push(`${name} begins`, `${name} ends`);
        throw new Error(name);
      },
      rejects: async (name) => {
        log.push(`${name} begins`);
        await turn();
        log.push(`${name} ends`);
        throw new Error(name);
      },
    };
    // Each kind after each other one.
    const pairs = Object.keys(kinds).flatMap((first) => Object.keys(kinds).flatMap((second) => [first, second]));
    const names = await respond((tasks) =>
      pairs.map((kind, index) => {
        const name = `${index} ${kind}`;
        tasks.add(kinds[kind] ?? neverMind, name);
        return name;
      }),
    );
    await middleware.idle();
    expect(log).toEqual(names.flatMap((name) => [`${name} begins`, `${name} ends`]));
    expect(middleware.stats).toEqual({ ...zero, succeeded: 48, failed: 24 });
  });

  it('runs the tasks of different responses side by side', async () => {
    const { middleware, respond } = await serveTasks({}, express);
    const done = deferred();
    const log: string[] = [];
    await respond((tasks) => {
      tasks.add(() => done.promise);
      tasks.add(() => void log.push('slow response'));
    });
    const quick = await respond((tasks) => tasks.add(() => void log.push('quick response')));
    await quick.finished;
    done.resolve();
    await middleware.idle();
    expect(log).toEqual(['quick response', 'slow response']);
  });
});

describe('promise 3: sync or async, the same function, the same arguments', () => {
  it.each<[string, (...args: unknown[]) => unknown]>([
    ['a function', (...args) => args],
    ['an async function', async (...args) => args],
    ['a function that returns a thenable', (...args) => thenable(args)],
  ])('passes the arguments of add to %s, by reference, and keeps what it resolves with', async (_name, fn) => {
    const { respond } = await serveTasks();
    const args = [{ deep: { object: 1 } }, [1, 2], Symbol('symbol'), undefined, null, neverMind, Number.NaN, 10n, ''];
    const handle = await respond((tasks) => tasks.add(fn, ...args));
    const outcome = await handle.finished;
    const passed = outcome.status === 'succeeded' ? (outcome.value as unknown[]) : [];
    expect(passed).toHaveLength(args.length);
    for (const [index, arg] of args.entries()) expect(Object.is(passed[index], arg)).toBe(true);
  });

  it('calls it without a this', async () => {
    const { respond } = await serveTasks();
    const handle = await respond((tasks) =>
      tasks.add(function (this: unknown) {
        return [this];
      } as () => unknown),
    );
    expect(await handle.finished).toEqual({ status: 'succeeded', value: [undefined] });
  });

  it('passes no argument where there is none', async () => {
    const { respond } = await serveTasks();
    const fn = jest.fn();
    await (await respond((tasks) => tasks.add(fn))).finished;
    expect(fn.mock.calls).toEqual([[]]);
  });

  it('runs one function as often as it was added', async () => {
    const { middleware, respond } = await serveTasks();
    const fn = jest.fn();
    await respond((tasks) => {
      tasks.add(fn, 1);
      tasks.add(fn, 2);
      tasks.add(fn, 1);
    });
    await middleware.idle();
    expect(fn.mock.calls).toEqual([[1], [2], [1]]);
  });

  it('passes arguments as they are when the task runs', async () => {
    const { open } = await serveTasks();
    const order = { state: 'new' };
    const { added, end } = await open((tasks) => tasks.add(({ state }) => state, order));
    order.state = 'paid';
    await end();
    expect(await added.finished).toEqual({ status: 'succeeded', value: 'paid' });
  });

  it('fails a class, which cannot be called', async () => {
    const { reports, respond } = await serveTasks();
    class Mail {}
    const handle = await respond((tasks) => tasks.add(Mail as unknown as () => void));
    expect(await handle.finished).toMatchObject({ status: 'failed', error: { name: 'TypeError' } });
    expect(reports).toHaveLength(1);
  });
});

describe('promise 7: added late', () => {
  it('puts what a task adds at the end of the list', async () => {
    const { middleware, respond } = await serveTasks();
    const log: string[] = [];
    await respond((tasks) => {
      const add = (name: string, ...children: string[]): void => {
        tasks.add(async () => {
          log.push(name);
          for (const child of children) add(child, ...(child.length < 3 ? [`${child}a`] : []));
          await turn();
        });
      };
      add('1', '1a', '1b');
      add('2', '2a');
      add('3');
    });
    await middleware.idle();
    expect(log).toEqual(['1', '2', '3', '1a', '1b', '2a', '1aa', '1ba', '2aa']);
  });

  it('runs what is added after the list has ended, each time anew', async () => {
    const { respond } = await serveTasks();
    const tasks = await respond((tasks) => {
      tasks.add(neverMind);
      return tasks;
    });
    for (const value of [1, 2, 3]) {
      expect(await tasks.add(async () => value).finished).toEqual({ status: 'succeeded', value });
      await turn();
    }
    expect(await tasks.add(() => 4).finished).toEqual({ status: 'succeeded', value: 4 });
  });

  it('runs what is added by whoever waited for the last task', async () => {
    const { middleware, respond } = await serveTasks();
    const ran = jest.fn();
    await respond((tasks) => {
      void tasks.add(neverMind).finished.then(() => tasks.add(ran));
    });
    await middleware.idle();
    await turn();
    await middleware.idle();
    expect(ran).toHaveBeenCalledTimes(1);
  });

  it('runs what onError adds', async () => {
    const ran = jest.fn();
    const { middleware, respond } = await serveTasks({
      onError: (_error, { res }) => void res?.locals.backgroundTasks.add(ran),
    });
    await respond((tasks) => {
      tasks.add(() => Promise.reject(new Error('boom')));
      tasks.add(() => expect(ran).not.toHaveBeenCalled());
    });
    await middleware.idle();
    expect(ran).toHaveBeenCalledTimes(1);
    expect(middleware.stats).toEqual({ ...zero, succeeded: 2, failed: 1 });
  });

  it('does not start late tasks within add', async () => {
    const { respond } = await serveTasks();
    const tasks = await respond((tasks) => tasks);
    const ran = jest.fn();
    const handle = tasks.add(ran);
    expect(ran).not.toHaveBeenCalled();
    await handle.finished;
    expect(ran).toHaveBeenCalledTimes(1);
  });

  type Run = (count: number) => Promise<void>;
  const tasks: [string, () => unknown][] = [
    ['synchronous', neverMind],
    ['asynchronous', async () => {}],
    ['thenable', () => Object.defineProperty({}, 'then', { value: (resolve: () => void) => resolve() })],
    // With no Error: the stacks of 100,000 of them cost more than all the rest.
    ['failing', () => Promise.reject('boom')],
  ];
  const shapes: [string, (fn: () => unknown) => Run][] = [
    [
      'on one response',
      (fn) => async (count) => {
        const { middleware, respond } = await serveTasks({ onError: neverMind });
        await respond((tasks) => {
          for (let added = 0; added < count; added++) tasks.add(fn);
        });
        await middleware.idle();
        expect(middleware.stats.succeeded + middleware.stats.failed).toBe(count);
      },
    ],
    [
      'in a chain, each adding the next',
      (fn) => async (count) => {
        const { middleware, respond } = await serveTasks({ onError: neverMind });
        await respond((tasks) => {
          let added = 1;
          const addNext = (): unknown => {
            if (added < count) {
              added++;
              tasks.add(addNext);
            }
            return fn();
          };
          tasks.add(addNext);
        });
        await middleware.idle();
        expect(middleware.stats.succeeded + middleware.stats.failed).toBe(count);
      },
    ],
  ];

  describe.each(shapes)('30,000 tasks %s', (_shape, toRun) => {
    it.each(tasks)(
      '%s: neither overflow the stack nor cost more each than 3,000 do',
      async (_kind, fn) => {
        const run = toRun(fn);
        const time = async (count: number): Promise<number> => {
          const before = cpuTime();
          await run(count);
          return cpuTime() - before;
        };
        // The first one warms up, and the slowest of the short ones counts: what is compared is 1 to 10 of linear, 1 to 100 of
        // quadratic cost.
        const short = Math.max(await time(3_000), await time(3_000), await time(3_000));
        const long = await time(30_000);
        expect(long / short).toBeLessThan(30);
      },
      60_000,
    );
  });
});

describe.each(expresses)('promise 8: context (Express %s)', (_version, express) => {
  it('shows each task the stores of its own add', async () => {
    const first = new AsyncLocalStorage<string>();
    const second = new AsyncLocalStorage<number>();
    const { respond } = await serveTasks({}, express);
    const look = (): unknown => [first.getStore(), second.getStore()];
    const lookAsync = async (): Promise<unknown> => {
      await turn();
      return look();
    };
    const handles = await respond((tasks) => [
      tasks.add(look),
      first.run('a', () => tasks.add(look)),
      first.run('a', () => second.run(1, () => tasks.add(lookAsync))),
      second.run(2, () => tasks.add(lookAsync)),
      first.run('b', () => tasks.add(lookAsync)),
      tasks.add(lookAsync),
    ]);
    const outcomes = await Promise.all(handles.map(({ finished }) => finished));
    expect(outcomes).toEqual(
      [
        [undefined, undefined],
        ['a', undefined],
        ['a', 1],
        [undefined, 2],
        ['b', undefined],
        [undefined, undefined],
      ].map((value) => ({ status: 'succeeded', value })),
    );
  });

  it('keeps what a task enters from the next one, and hands on to those that it adds', async () => {
    const storage = new AsyncLocalStorage<string>();
    const { middleware, respond } = await serveTasks({}, express);
    const seen: unknown[] = [];
    const look = (name: string): void => void seen.push([name, storage.getStore()]);
    await respond((tasks) =>
      storage.run('of the add', () => {
        tasks.add(() => {
          storage.enterWith('of the task');
          tasks.add(look, 'added by the task');
        });
        tasks.add(look, 'next');
        tasks.add(async () => {
          await turn();
          storage.run('of the second task', () => tasks.add(look, 'added by the second task'));
        });
      }),
    );
    await middleware.idle();
    expect(seen).toEqual([
      ['next', 'of the add'],
      ['added by the task', 'of the task'],
      ['added by the second task', 'of the second task'],
    ]);
  });

  it('runs onError and the logger where the task was added', async () => {
    const storage = new AsyncLocalStorage<string>();
    for (const by of ['onError', 'logger'] as const) {
      const seen: unknown[] = [];
      const look = (): void => void seen.push(storage.getStore());
      const { middleware, respond } = await serveTasks(
        by === 'onError' ? { onError: look } : { onError: undefined, logger: { error: look } },
        express,
      );
      await respond((tasks) => {
        for (const store of ['a', 'b']) {
          storage.run(store, () => {
            tasks.add(() => Promise.reject(new Error('boom')));
            tasks.add(() => {
              throw new Error('boom');
            });
          });
        }
      });
      await middleware.idle();
      expect(seen).toEqual(['a', 'a', 'b', 'b']);
    }
  });

  it('holds behind express.json(), on connections kept alive, for requests side by side', async () => {
    const before = new AsyncLocalStorage<string>();
    const behind = new AsyncLocalStorage<string>();
    const middleware = backgroundTasks();
    const app = express();
    const seen: unknown[] = [];
    app.use(middleware);
    app.use((req, _res, next) => before.run(req.url, next));
    app.use(express.json({ limit: '1mb' }));
    app.use((req, _res, next) => behind.run(req.body.id, next));
    app.post('/:id', async (req: Request, res: Response) => {
      const look = async (id: string): Promise<void> => {
        await turn();
        seen.push([id, before.getStore(), behind.getStore()]);
      };
      res.locals.backgroundTasks.add(look, req.body.id);
      await turn();
      res.locals.backgroundTasks.add(look, req.body.id);
      res.send('sent');
      await turn();
      res.locals.backgroundTasks.add(look, req.body.id);
    });
    const { url, server } = await serve(app);
    let connections = 0;
    server.on('connection', () => connections++);
    const agent = new Agent({ keepAlive: true, maxSockets: 4 });
    const post = async (id: string): Promise<void> => {
      const sent = request(`${url}/${id}`, { agent, method: 'POST', headers: { 'Content-Type': 'application/json' } });
      // More than fits into one chunk, so that the body arrives after the handlers were first called.
      sent.end(JSON.stringify({ id, padding: 'x'.repeat(200_000) }));
      const [response] = (await once(sent, 'response')) as [IncomingMessage];
      expect(response.statusCode).toBe(200);
      await once(response.resume(), 'end');
    };
    const ids = Array.from({ length: 20 }, (_, number) => `request-${number}`);
    await Promise.all(ids.map(post));
    await turn();
    await middleware.idle();
    agent.destroy();
    expect(connections).toBeLessThanOrEqual(4);
    expect(seen).toHaveLength(60);
    expect(new Set(seen.map((each) => JSON.stringify(each)))).toEqual(
      new Set(ids.map((id) => JSON.stringify([id, `/${id}`, id]))),
    );
  });
});

describe('promise 9: fair', () => {
  /** A clock that only tasks move on. */
  function fakeClock(): { pass(ms: number): void } {
    let now = performance.now();
    jest.spyOn(performance, 'now').mockImplementation(() => now);
    return {
      pass(ms) {
        now += ms;
      },
    };
  }

  /** Counts what happens between two turns of the event loop, until it is stopped. */
  function watchTurns() {
    let isStopped = false;
    let sinceTurn = 0;
    let most = 0;
    const onTurn = (): void => {
      sinceTurn = 0;
      if (!isStopped) setImmediate(onTurn);
    };
    setImmediate(onTurn);
    return {
      count(amount: number) {
        sinceTurn += amount;
        most = Math.max(most, sinceTurn);
      },
      stop() {
        isStopped = true;
        return most;
      },
    };
  }

  type ToTask = (work: () => void) => unknown;
  const kinds: [string, ToTask][] = [
    ['synchronous tasks', (work) => work()],
    ['asynchronous tasks that never wait', async (work) => work()],
    [
      'tasks that return a thenable',
      (work) => {
        work();
        return Object.defineProperty({}, 'then', { value: (resolve: () => void) => resolve() });
      },
    ],
    [
      'failing tasks',
      (work) => {
        work();
        throw new Error('boom');
      },
    ],
  ];

  /** The most work between two turns of the loop, while responses with that many tasks each run side by side. */
  async function mostBetweenTurns(toTask: ToTask, ms: number, responses: number, tasksEach: number): Promise<number> {
    const { middleware, respond } = await serveTasks({ onError: neverMind });
    const gate = deferred();
    const clock = fakeClock();
    const turns = watchTurns();
    const work = (): void => {
      clock.pass(ms);
      turns.count(ms);
    };
    for (let response = 0; response < responses; response++) {
      await respond((tasks) => {
        tasks.add(() => gate.promise);
        for (let added = 0; added < tasksEach; added++) tasks.add(() => toTask(work));
      });
    }
    gate.resolve();
    await middleware.idle();
    expect(middleware.stats.succeeded + middleware.stats.failed).toBe(responses * (tasksEach + 1));
    return turns.stop();
  }

  describe.each(kinds)('%s', (_kind, toTask) => {
    it.each([0.25, 1, 4, 7, 40])('of %d ms on one response hold the loop for one of them and 10 ms', async (ms) => {
      expect(await mostBetweenTurns(toTask, ms, 1, 500)).toBeLessThanOrEqual(ms + 10);
    });

    it.each([0.25, 1, 4, 7, 40])('of %d ms on many responses hold the loop for one of them and 10 ms', async (ms) => {
      expect(await mostBetweenTurns(toTask, ms, 25, 20)).toBeLessThanOrEqual(ms + 10);
    });
  });

  it.each([0.25, 1, 4, 7, 40])('tasks of %d ms with microtasks before and after them do so as well', async (ms) => {
    const toTask: ToTask = async (work) => {
      await null;
      work();
      await null;
    };
    expect(await mostBetweenTurns(toTask, ms, 1, 500)).toBeLessThanOrEqual(ms + 10);
  });

  it.each(expresses)(
    'other requests are answered while tasks keep the process busy (Express %s)',
    async (_version, express) => {
      const middleware = backgroundTasks();
      const gate = deferred();
      let ran = 0;
      const work = (): void => {
        const end = performance.now() + 5;
        while (performance.now() < end);
        ran++;
      };
      const app = express();
      app.get('/ping', (_req, res) => {
        res.send('pong');
      });
      app.use(middleware);
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(() => gate.promise);
        for (let added = 0; added < 10; added++) res.locals.backgroundTasks.add(work);
        res.send('sent');
      });
      const { url } = await serve(app);
      await Promise.all(Array.from({ length: 10 }, async () => (await fetch(url)).text()));
      const ranAtPings: number[] = [];
      gate.resolve();
      while (ran < 100) {
        await (await fetch(`${url}/ping`)).text();
        ranAtPings.push(ran);
      }
      // A ping takes some turns of the loop, the client's and the server's, and each turn may run a task or two.
      const between = ranAtPings.map((count, ping) => count - (ranAtPings[ping - 1] ?? 0));
      expect(Math.max(...between)).toBeLessThan(40);
      expect(ranAtPings.length).toBeGreaterThan(5);
      await middleware.idle();
    },
  );
});

describe.each(expresses)('stopOnError (Express %s)', (_version, express) => {
  const fail = (): never => {
    throw new Error('boom');
  };

  it.each([
    ['throws', fail],
    ['rejects', async () => fail()],
  ])('skips the rest of the list when a task %s', async (_name, failing) => {
    const { middleware, reports, respond } = await serveTasks({ stopOnError: true }, express);
    const ran = jest.fn();
    const handles = await respond((tasks) => [tasks.add(ran), tasks.add(failing), tasks.add(ran), tasks.add(ran)]);
    const outcomes = await Promise.all(handles.map(({ finished }) => finished));
    expect(outcomes.map(({ status }) => status)).toEqual(['succeeded', 'failed', 'skipped', 'skipped']);
    expect(ran).toHaveBeenCalledTimes(1);
    expect(reports).toHaveLength(1);
    await middleware.idle();
    expect(middleware.stats).toEqual({ ...zero, succeeded: 1, failed: 1, skipped: 2 });
  });

  it('has reported the failure once all outcomes are known, wherever a time slice ends', async () => {
    const { reports, respond } = await serveTasks({ stopOnError: true }, express);
    let now = 0;
    jest.spyOn(performance, 'now').mockImplementation(() => {
      now += 1000;
      return now;
    });
    const handles = await respond((tasks) => [tasks.add(fail), tasks.add(neverMind), tasks.add(neverMind)]);
    await Promise.all(handles.map(({ finished }) => finished));
    expect(reports).toHaveLength(1);
  });

  it('leaves cancelled tasks cancelled', async () => {
    const { middleware, respond } = await serveTasks({ stopOnError: true }, express);
    const cancelled = await respond((tasks) => {
      tasks.add(fail);
      const handle = tasks.add(neverMind);
      tasks.add(neverMind);
      handle.cancel();
      return handle;
    });
    await middleware.idle();
    expect(cancelled.status).toBe('cancelled');
    expect(middleware.stats).toEqual({ ...zero, failed: 1, cancelled: 1, skipped: 1 });
  });

  it('skips what the failing task has added', async () => {
    const { middleware, respond } = await serveTasks({ stopOnError: true }, express);
    const ran = jest.fn();
    await respond((tasks) =>
      tasks.add(() => {
        tasks.add(ran);
        fail();
      }),
    );
    await middleware.idle();
    expect(ran).not.toHaveBeenCalled();
    expect(middleware.stats).toEqual({ ...zero, failed: 1, skipped: 1 });
  });

  it('runs what onError adds to deal with the failure', async () => {
    const ran = jest.fn();
    const { middleware, respond } = await serveTasks(
      { stopOnError: true, onError: (_error, { res }) => void res?.locals.backgroundTasks.add(ran) },
      express,
    );
    await respond((tasks) => {
      tasks.add(fail);
      tasks.add(neverMind);
    });
    await middleware.idle();
    expect(ran).toHaveBeenCalledTimes(1);
    expect(middleware.stats).toEqual({ ...zero, succeeded: 1, failed: 1, skipped: 1 });
  });

  it('runs what is added after that, until the next failure', async () => {
    const { middleware, respond } = await serveTasks({ stopOnError: true }, express);
    const tasks = await respond((tasks) => {
      tasks.add(fail);
      tasks.add(neverMind);
      return tasks;
    });
    await middleware.idle();
    const handles: TaskHandle[] = [tasks.add(neverMind), tasks.add(fail), tasks.add(neverMind)];
    const outcomes = await Promise.all(handles.map(({ finished }) => finished));
    expect(outcomes.map(({ status }) => status)).toEqual(['succeeded', 'failed', 'skipped']);
  });

  it('does not touch the tasks of other responses', async () => {
    const { middleware, open } = await serveTasks({ stopOnError: true }, express);
    const other = await open((tasks) => [tasks.add(neverMind), tasks.add(neverMind)]);
    const failing = await open((tasks) => [tasks.add(fail), tasks.add(neverMind)]);
    await failing.end();
    await other.end();
    await middleware.idle();
    expect(middleware.stats).toEqual({ ...zero, succeeded: 2, failed: 1, skipped: 1 });
  });

  it('skips the rest when when throws', async () => {
    const { middleware, reports, respond } = await serveTasks({ stopOnError: true, when: fail }, express);
    await respond((tasks) => [tasks.add(neverMind), tasks.add(neverMind)]);
    await middleware.idle();
    expect(reports).toHaveLength(1);
    expect(middleware.stats).toEqual({ ...zero, failed: 1, skipped: 1 });
  });
});
