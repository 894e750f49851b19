// Promises 4 and 14: one list a response, to which everything that is no function is refused; and the handles that add returns.

import { setImmediate as turn } from 'node:timers/promises';
import type { NextFunction, Request, Response } from 'express';
import { type BackgroundTasks, backgroundTasks, type TaskHandle, type TaskOutcome, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { hostileErrors, hostileProxy } from '../fixtures/hostile';
import { expresses, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

const zero = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };

function neverMind(): void {}

/** Adds what the types forbid. */
function addAnything(tasks: BackgroundTasks, value: unknown): TaskHandle {
  return tasks.add(value as () => void);
}

describe.each(expresses)('Express %s', (_version, express) => {
  describe('promise 4: one object a response', () => {
    /** An app all of whose parts add a task that tells their name. */
    function nested() {
      const middleware = backgroundTasks();
      const ran: string[] = [];
      const lists = new Map<Request, Set<BackgroundTasks>>();
      const part = (name: string) => (_req: Request, res: Response, next: NextFunction) => {
        // Mounted apps have a req of their own prototype, but it is the same object.
        const list = lists.get(_req) ?? new Set();
        lists.set(_req, list.add(res.locals.backgroundTasks));
        res.locals.backgroundTasks.add((from: string) => void ran.push(from), name);
        next();
      };
      const answer = (_req: Request, res: Response): void => {
        res.send('sent');
      };

      const mounted = express();
      mounted.use(part('mounted app'));
      mounted.get('/', part('route of mounted app'), answer);
      mounted.get('/throws', part('throwing route'), () => {
        throw new Error('boom');
      });
      mounted.get('/next', (_req, _res, next) => next());

      const router = express.Router();
      router.use(part('router'));
      router.get('/:param', part('route'), part('route again'), answer);
      router.param('param', (req, res, next) => part('param')(req, res, next));

      const app = express();
      app.use(middleware);
      app.use(part('middleware'));
      app.use('/mounted', mounted);
      app.use('/router', router);
      app.use(part('fallback'));
      app.use((error: Error, req: Request, res: Response, next: NextFunction) => {
        part('error handler')(req, res, () => {});
        next(error);
      });
      app.use((_error: Error, _req: Request, res: Response, _next: NextFunction) => {
        res.locals.backgroundTasks.add((from: string) => void ran.push(from), 'last error handler');
        res.status(500).send('failed');
      });
      return { app, middleware, ran, lists };
    }

    it.each([
      ['/mounted', ['middleware', 'mounted app', 'route of mounted app']],
      ['/mounted/throws', ['middleware', 'mounted app', 'throwing route', 'error handler', 'last error handler']],
      ['/mounted/next', ['middleware', 'mounted app', 'fallback']],
      ['/router/value', ['middleware', 'router', 'param', 'route', 'route again']],
      ['/elsewhere', ['middleware', 'fallback']],
    ])('everything on the way of %s adds to the same list', async (path, names) => {
      const { app, middleware, ran, lists } = nested();
      const { url } = await serve(app);
      await (await fetch(url + path)).text();
      await middleware.idle();
      expect(ran).toEqual(names);
      expect([...lists.values()].map(({ size }) => size)).toEqual([1]);
    });

    it('another one for each response', async () => {
      const { app, middleware, lists } = nested();
      const { url } = await serve(app);
      await Promise.all(
        ['/mounted', '/router/value', '/mounted'].map(async (path) => (await fetch(url + path)).text()),
      );
      await middleware.idle();
      expect(new Set([...lists.values()].flatMap((list) => [...list])).size).toBe(3);
    });

    it('mounted twice, the first stays', async () => {
      const [first, second] = [backgroundTasks(), backgroundTasks()];
      const app = express();
      const seen: BackgroundTasks[] = [];
      const look = (_req: Request, res: Response, next: NextFunction): void => {
        seen.push(res.locals.backgroundTasks);
        res.locals.backgroundTasks.add(neverMind);
        next();
      };
      const mounted = express();
      mounted.use(second, look);
      mounted.get('/', (_req, res) => {
        res.send('sent');
      });
      app.use(first, look, first, look, second, look);
      app.use(mounted);
      const { url } = await serve(app);
      await (await fetch(url)).text();
      await first.idle();
      expect(seen).toHaveLength(4);
      expect(new Set(seen).size).toBe(1);
      expect(first.stats).toEqual({ ...zero, succeeded: 4 });
      expect(second.stats).toEqual(zero);
    });

    it('mounted twice, the first stays also where res.locals was replaced meanwhile', async () => {
      const middleware = backgroundTasks();
      const app = express();
      const order: number[] = [];
      app.use(middleware);
      app.use((_req, res, next) => {
        res.locals.backgroundTasks.add(async () => {
          await turn();
          order.push(1);
        });
        Object.assign(res, { locals: { user: 'ada' } });
        next();
      });
      app.use(middleware);
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(() => order.push(2));
        res.json(res.locals['user']);
      });
      const { url } = await serve(app);
      expect(await (await fetch(url)).json()).toBe('ada');
      await middleware.idle();
      expect(order).toEqual([1, 2]);
    });

    it('mounted on a router, only there', async () => {
      const app = express();
      const report = (_req: Request, res: Response): void => {
        res.json(Object.keys(res.locals));
      };
      const router = express.Router().use(backgroundTasks());
      router.get('/', report);
      app.use('/with', router);
      app.get('/without', report);
      const { url } = await serve(app);
      expect(await (await fetch(`${url}/with`)).json()).toEqual(['backgroundTasks']);
      expect(await (await fetch(`${url}/without`)).json()).toEqual([]);
    });
  });

  describe('promise 14: fail early, in add', () => {
    it('lets Express answer 500 where the handler lets it pass, and what was added before runs', async () => {
      const middleware = backgroundTasks();
      const app = express().use(middleware);
      app.set('env', 'test'); // Express then prints no errors.
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(neverMind);
        addAnything(res.locals.backgroundTasks, 'sendWelcome');
        res.send('sent');
      });
      const { url } = await serve(app);
      expect((await fetch(url)).status).toBe(500);
      await middleware.idle();
      expect(middleware.stats).toEqual({ ...zero, succeeded: 1 });
    });
  });
});

describe('promise 14: fail early, in add', () => {
  const noFunctions: [string, () => unknown][] = [
    ...Object.entries(hostileErrors).filter(([, make]) => typeof make() !== 'function'),
    ['a string', () => 'sendWelcome'],
    ['an array', () => [neverMind]],
    ['an object with a function', () => ({ call: neverMind, apply: neverMind })],
  ];

  it.each(noFunctions)('throws for %s at the call, and counts nothing', async (_name, make) => {
    const { middleware, respond } = await serveTasks();
    const seen = await respond((tasks, res) => {
      const before = res.eventNames();
      let thrown: unknown;
      try {
        addAnything(tasks, make());
      } catch (error) {
        thrown = error;
      }
      return { thrown, before, after: res.eventNames() };
    });
    expect(seen.thrown).toEqual(
      expect.objectContaining({
        name: 'BackgroundTasksError',
        code: 'ERR_INVALID_TASK',
        message: expect.stringMatching(/^add\(\): a task must be a function, not ./),
      }),
    );
    expect(seen.after).toEqual(seen.before);
    expect(middleware.stats).toEqual(zero);
    await middleware.idle();
  });

  it('shows what it was given', async () => {
    const { respond } = await serveTasks();
    await respond((tasks) => {
      expect(() => addAnything(tasks, undefined)).toThrow(/^add\(\): a task must be a function, not undefined$/);
      expect(() => addAnything(tasks, 'sendWelcome')).toThrow("add(): a task must be a function, not 'sendWelcome'");
      expect(() => addAnything(tasks, { to: { name: 'you' } })).toThrow('not { to: [Object] }');
    });
  });

  it('says to pass the function if its call was passed', async () => {
    const { respond } = await serveTasks();
    const sendWelcome = async (): Promise<void> => {};
    await respond((tasks) => {
      expect(() => addAnything(tasks, sendWelcome())).toThrow(
        'add(): a task must be a function, not a promise: pass the function and its arguments, add(fn, ...args), not its call',
      );
      expect(() => addAnything(tasks, {})).not.toThrow('pass the function');
    });
  });
});

describe('a handle', () => {
  describe('its id', () => {
    it('is unique, and stays', async () => {
      const { respond } = await serveTasks();
      const ids: string[] = [];
      for (let response = 0; response < 3; response++) {
        const handles = await respond((tasks) => Array.from({ length: 100 }, () => tasks.add(neverMind)));
        const before = handles.map(({ id }) => id);
        await Promise.all(handles.map(({ finished }) => finished));
        expect(handles.map(({ id }) => id)).toEqual(before);
        ids.push(...before);
      }
      expect(new Set(ids).size).toBe(300);
      for (const id of ids) expect(id).toMatch(/^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/);
    });

    it('is the same in the report, and where it is read only after', async () => {
      const { middleware, reports, respond } = await serveTasks();
      const handle = await respond((tasks) => tasks.add(() => Promise.reject(new Error('boom'))));
      await middleware.idle();
      expect(reports[0]?.task.id).toBe(handle.id);
    });
  });

  describe('its name', () => {
    class Mailer {
      static send(): void {}
      deliver(): void {}
    }
    const named = (name: unknown) => Object.defineProperty(() => {}, 'name', { value: name });
    it.each<[string, () => unknown, string]>([
      ['a function declaration', neverMind, 'neverMind'],
      ['an arrow function in a variable', named('inVariable'), 'inVariable'],
      ['an anonymous function', (() => () => {})(), 'anonymous'],
      ['a bound function', neverMind.bind(null), 'bound neverMind'],
      ['a static method', Mailer.send, 'send'],
      ['a method', new Mailer().deliver, 'deliver'],
      ['an empty name', named(''), 'anonymous'],
      ['a name that is no string', named(Symbol('name')), 'anonymous'],
      ['a name that is an object', named({ toString: () => 'object' }), 'anonymous'],
      ['a name that throws', Object.defineProperty(() => {}, 'name', { get: () => JSON.parse('') }), 'anonymous'],
      ['a Proxy that throws', hostileProxy(neverMind), 'anonymous'],
      ['a defined task', task('defined', neverMind), 'defined'],
    ])('of %s', async (_description, fn, name) => {
      const { middleware, respond } = await serveTasks();
      const handle = await respond((tasks) => {
        const added = tasks.add(fn);
        expect(added.name).toBe(name);
        return added;
      });
      await middleware.idle();
      expect(handle.name).toBe(name);
    });
  });

  describe('its status and outcome', () => {
    it.each<[string, () => unknown, TaskOutcome]>([
      ['returns', () => 'value', { status: 'succeeded', value: 'value' }],
      ['returns nothing', neverMind, { status: 'succeeded', value: undefined }],
      ['resolves', async () => 'value', { status: 'succeeded', value: 'value' }],
      [
        'throws',
        () => {
          throw new Error('boom');
        },
        { status: 'failed', error: new Error('boom') },
      ],
      ['rejects', () => Promise.reject(new Error('boom')), { status: 'failed', error: new Error('boom') }],
      ['rejects with nothing', () => Promise.reject(), { status: 'failed', error: undefined }],
    ])('of a task that %s', async (_description, fn, outcome) => {
      const { respond } = await serveTasks();
      const before: string[] = [];
      const during = deferred<string>();
      const handle = await respond((tasks) => {
        const added = tasks.add(() => {
          during.resolve(added.status);
          return fn();
        });
        before.push(added.status);
        return added;
      });
      expect(await handle.finished).toEqual(outcome);
      expect([...before, await during.promise, handle.status]).toEqual(['pending', 'running', outcome.status]);
    });

    it('is running as long as the task is awaited', async () => {
      const { respond } = await serveTasks();
      const [started, done] = [deferred(), deferred<string>()];
      const handle = await respond((tasks) =>
        tasks.add(() => {
          started.resolve();
          return done.promise;
        }),
      );
      await started.promise;
      await turn();
      expect(handle.status).toBe('running');
      done.resolve('value');
      expect(await handle.finished).toEqual({ status: 'succeeded', value: 'value' });
    });

    it('is skipped where when is against it', async () => {
      const { respond } = await serveTasks({ when: () => false });
      const handle = await respond((tasks) => tasks.add(neverMind));
      expect(await handle.finished).toEqual({ status: 'skipped' });
      expect(handle.status).toBe('skipped');
    });

    it('is skipped where the when of the middleware is against it, which has options but no when of its own', async () => {
      const { respond } = await serveTasks({ when: () => false });
      const handle = await respond((tasks) => tasks.add(task('limited', neverMind, { timeout: 1000 })));
      expect(await handle.finished).toEqual({ status: 'skipped' });
    });

    it('is told to all that ask, early and late', async () => {
      const { middleware, respond } = await serveTasks();
      const early = await respond((tasks) => {
        const handle = tasks.add(() => 'value');
        return { handle, promises: [handle.finished, handle.finished] };
      });
      await middleware.idle();
      const late = await respond((tasks) => tasks.add(() => Promise.reject(new Error('boom'))));
      await middleware.idle();
      expect(await Promise.all([...early.promises, early.handle.finished])).toEqual(
        Array(3).fill({ status: 'succeeded', value: 'value' }),
      );
      expect(await late.finished).toEqual({ status: 'failed', error: new Error('boom') });
      expect(await late.finished).toEqual({ status: 'failed', error: new Error('boom') });
    });

    it('never rejects: an outcome that nobody reads is nobody’s unhandled rejection', async () => {
      const { middleware, reports, respond } = await serveTasks();
      await respond((tasks) => void tasks.add(() => Promise.reject(new Error('boom'))).finished);
      await middleware.idle();
      await turn();
      expect(reports).toHaveLength(1);
    });

    it('is told before the next task begins, and the report is made', async () => {
      const { middleware, respond } = await serveTasks({
        onError: () => void order.push(`reported as ${failing?.status}`),
      });
      const order: string[] = [];
      let failing: TaskHandle | undefined;
      await respond((tasks) => {
        failing = tasks.add(() => Promise.reject(new Error('boom')));
        tasks.add(() => void order.push(`next, after one that ${failing?.status}`));
      });
      await middleware.idle();
      expect(order).toEqual(['reported as failed', 'next, after one that failed']);
    });
  });

  describe('cancel()', () => {
    it('of a pending task returns true: it never runs, and the others do', async () => {
      const { middleware, reports, respond } = await serveTasks();
      const ran: number[] = [];
      const { results, outcome, handle } = await respond((tasks) => {
        const handles = [0, 1, 2, 3].map((number) => tasks.add(() => void ran.push(number)));
        const cancelled = handles[1];
        return {
          results: [cancelled?.cancel(), cancelled?.cancel()],
          outcome: cancelled?.finished,
          handle: cancelled,
        };
      });
      expect(results).toEqual([true, false]);
      expect(handle?.status).toBe('cancelled');
      expect(await outcome).toEqual({ status: 'cancelled' });
      await middleware.idle();
      expect(ran).toEqual([0, 2, 3]);
      expect(reports).toEqual([]);
      expect(middleware.stats).toEqual({ ...zero, succeeded: 3, cancelled: 1 });
    });

    it('of all pending tasks leaves nothing to do', async () => {
      const { middleware, respond } = await serveTasks();
      const when = jest.fn(() => true);
      await respond((tasks) => {
        for (let count = 0; count < 5; count++) tasks.add(task('never', neverMind, { when })).cancel();
      });
      await middleware.idle();
      expect(when).not.toHaveBeenCalled();
      expect(middleware.stats).toEqual({ ...zero, cancelled: 5 });
    });

    it('of a pending task by the one before it', async () => {
      const { middleware, respond } = await serveTasks();
      const never = jest.fn();
      await respond((tasks) => {
        tasks.add(() => expect(later.cancel()).toBe(true));
        const later = tasks.add(never);
      });
      await middleware.idle();
      expect(never).not.toHaveBeenCalled();
      expect(middleware.stats).toEqual({ ...zero, succeeded: 1, cancelled: 1 });
    });

    it('of a running task returns false: it ends as cancelled if it rejects, and is not reported', async () => {
      const { middleware, reports, respond } = await serveTasks();
      const [started, done] = [deferred(), deferred()];
      const handle = await respond((tasks) =>
        tasks.add(() => {
          started.resolve();
          return done.promise;
        }),
      );
      await started.promise;
      expect([handle.cancel(), handle.cancel()]).toEqual([false, false]);
      expect(handle.status).toBe('running');
      done.reject(new Error('aborted'));
      expect(await handle.finished).toEqual({ status: 'cancelled' });
      await middleware.idle();
      expect(reports).toEqual([]);
      expect(middleware.stats).toEqual({ ...zero, cancelled: 1 });
    });

    it('of a running task that succeeds all the same leaves it succeeded', async () => {
      const { middleware, respond } = await serveTasks();
      const [started, done] = [deferred(), deferred<string>()];
      const handle = await respond((tasks) =>
        tasks.add(() => {
          started.resolve();
          return done.promise;
        }),
      );
      await started.promise;
      expect(handle.cancel()).toBe(false);
      done.resolve('value');
      expect(await handle.finished).toEqual({ status: 'succeeded', value: 'value' });
      expect(middleware.stats).toEqual({ ...zero, succeeded: 1 });
    });

    it('of itself, by a synchronous task that then throws', async () => {
      const { middleware, reports, respond } = await serveTasks();
      const handle = await respond((tasks) => {
        const self = tasks.add(() => {
          expect(self.cancel()).toBe(false);
          throw new Error('boom');
        });
        return self;
      });
      expect(await handle.finished).toEqual({ status: 'cancelled' });
      await middleware.idle();
      expect(reports).toEqual([]);
    });

    it('of a task that is over returns false and changes nothing', async () => {
      const { middleware, respond } = await serveTasks();
      const [succeeded, failed] = await respond((tasks): [TaskHandle, TaskHandle] => [
        tasks.add(neverMind),
        tasks.add(() => Promise.reject(new Error('boom'))),
      ]);
      await middleware.idle();
      expect([succeeded.cancel(), failed.cancel()]).toEqual([false, false]);
      expect([succeeded.status, failed.status]).toEqual(['succeeded', 'failed']);
      expect(middleware.stats).toEqual({ ...zero, succeeded: 1, failed: 1 });
    });
  });
});

it('runs a task once that is added when the response has finished and is not closed yet', async () => {
  const { middleware, respond } = await serveTasks();
  const ran = jest.fn(() => turn());
  const added = deferred<TaskHandle>();
  await respond((tasks, res) => res.once('finish', () => added.resolve(tasks.add(ran))));
  await (await added.promise).finished;
  await turn();
  await middleware.idle();
  expect(ran).toHaveBeenCalledTimes(1);
  expect(middleware.stats).toEqual({ ...zero, succeeded: 1 });
});
