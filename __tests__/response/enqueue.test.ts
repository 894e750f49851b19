// enqueue(): from res.locals.backgroundTasks to the engine. What engines do with it is in engines/.

import { createEngine } from '../../lib/engine/index.js';
import {
  type BackgroundTasks,
  BackgroundTasksError,
  type BackgroundTasksOptions,
  backgroundTasks,
  enqueue,
  type TaskEngine,
  type TaskMessage,
  type TaskOptions,
  task,
} from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { expresses, serve } from '../fixtures/serve.js';

type Stored = Omit<TaskMessage, 'id' | 'json'>;

interface FakeEngine extends TaskEngine {
  messages: Stored[];
}

function fakeEngine(insert: () => Promise<{ id: string }> = async () => ({ id: 'id-1' })): FakeEngine {
  const messages: Stored[] = [];
  const engine = createEngine({
    name: 'fake',
    insert: async ({ id: _id, json: _json, ...message }) => {
      messages.push(message);
      return (await insert()).id;
    },
    close: () => {},
  });
  return Object.assign(engine, { messages });
}

type Enqueue = (task: unknown, ...args: unknown[]) => Promise<{ id: string }>;

describe.each(expresses)('enqueue on Express %s', (_version, express) => {
  /** Handles one request, and returns what the handler returned; its error goes to Express. */
  async function request<T>(
    options: BackgroundTasksOptions,
    handler: (tasks: BackgroundTasks) => T | Promise<T>,
  ): Promise<{ result: T | undefined; error: unknown; status: number }> {
    const app = express();
    let result: T | undefined;
    let error: unknown;
    app.use(backgroundTasks(options));
    app.get('/', async (_req, res, next) => {
      try {
        result = await handler(res.locals.backgroundTasks);
        res.sendStatus(202);
      } catch (thrown) {
        error = thrown;
        next(thrown);
      }
    });
    app.use((thrown: { status?: number }, _req: unknown, res: Answer, _next: unknown) => {
      res.status(thrown.status ?? 500).end();
    });
    const { url } = await serve(app);
    const { status } = await fetch(url);
    return { result, error, status };
  }

  /** Feeds what the types refuse. */
  async function refusal(given: unknown, ...args: unknown[]): Promise<unknown> {
    const engine = fakeEngine();
    const { error } = await request({ engine }, (tasks) => (tasks.enqueue as Enqueue)(given, ...args));
    expect(engine.messages).toEqual([]);
    return error;
  }

  const sendMail = task('send-mail', async (to: string, options: { subject: string }) => [to, options]);

  it('hands the name and the arguments of a task to the engine, and resolves with its id', async () => {
    const engine = fakeEngine();
    const { result } = await request({ engine }, (tasks) =>
      tasks.enqueue(sendMail, 'ann@example.com', { subject: 'Hi' }),
    );
    expect(result).toEqual({ id: 'id-1' });
    expect(engine.messages).toEqual([{ name: 'send-mail', args: ['ann@example.com', { subject: 'Hi' }] }]);
  });

  it('takes a remote task, whose handler is elsewhere', async () => {
    const engine = fakeEngine();
    const resize = task<[path: string, width: number]>('images.resize', { priority: 3 });
    await request({ engine }, (tasks) => tasks.enqueue(resize, '/a.png', 200));
    expect(engine.messages).toEqual([{ name: 'images.resize', args: ['/a.png', 200], priority: 3 }]);
  });

  it("is found by the package's enqueue() in the handler, behind an await, and in a task behind the response", async () => {
    const engine = fakeEngine();
    const ids: unknown[] = [];
    const middleware = backgroundTasks({ engine, timeout: 500 });
    const app = express();
    app.use(middleware);
    app.get('/', async (_req, res) => {
      ids.push(await enqueue(sendMail, 'handler', { subject: '1' }));
      res.locals.backgroundTasks.add(async () => ids.push(await enqueue(sendMail, 'task', { subject: '2' })));
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url);
    await middleware.idle();
    expect(ids).toEqual([{ id: 'id-1' }, { id: 'id-1' }]);
    expect(engine.messages).toEqual([
      { name: 'send-mail', args: ['handler', { subject: '1' }], timeout: 500 },
      { name: 'send-mail', args: ['task', { subject: '2' }], timeout: 500 },
    ]);
  });

  it('does not run the task here, nor count it among those that were added', async () => {
    const ran = jest.fn();
    const middleware = backgroundTasks({ engine: fakeEngine() });
    const app = express();
    app.use(middleware);
    app.get('/', async (_req, res) => {
      await res.locals.backgroundTasks.enqueue(task('a', ran));
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url);
    await middleware.idle();
    expect(ran).not.toHaveBeenCalled();
    expect(middleware.stats).toEqual({
      pending: 0,
      running: 0,
      succeeded: 0,
      failed: 0,
      skipped: 0,
      cancelled: 0,
      abandoned: 0,
    });
  });

  it('promise 1: resolves when the engine has, and not before', async () => {
    const stored = deferred<{ id: string }>();
    const engine = fakeEngine(() => stored.promise);
    let isSettled = false;
    const { result } = await request({ engine }, async (tasks) => {
      const enqueued = tasks.enqueue(sendMail, 'a', { subject: 'b' }).finally(() => {
        isSettled = true;
      });
      await new Promise(setImmediate);
      expect(isSettled).toBe(false);
      stored.resolve({ id: 'id-2' });
      return enqueued;
    });
    expect(result).toEqual({ id: 'id-2' });
  });

  it('promise 1: rejects as the engine does, and Express answers with the status', async () => {
    const unavailable = new BackgroundTasksError('ERR_ENGINE_UNAVAILABLE', 'away');
    const engine = fakeEngine(() => Promise.reject(unavailable));
    const { error, status } = await request({ engine }, (tasks) => tasks.enqueue(sendMail, 'a', { subject: 'b' }));
    expect(error).toBe(unavailable);
    expect(status).toBe(503);
  });

  it('calls the engine before it returns, so that it can take part in a transaction', async () => {
    const engine = fakeEngine();
    await request({ engine }, (tasks) => {
      void tasks.enqueue(sendMail, 'a', { subject: 'b' });
      expect(engine.messages).toHaveLength(1);
    });
  });

  it('may be called late, also when the response is over and the tasks are closed', async () => {
    const engine = fakeEngine();
    const middleware = backgroundTasks({ engine });
    const app = express();
    let tasks: BackgroundTasks | undefined;
    app.use(middleware);
    app.get('/', (_req, res) => {
      tasks = res.locals.backgroundTasks;
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url);
    await middleware.close();
    expect(await tasks?.enqueue(sendMail, 'a', { subject: 'b' })).toEqual({ id: 'id-1' });
  });

  describe('options', () => {
    const backoff = { limit: 2, minDelay: 1000, maxDelay: 30_000, factor: 2, jitter: true };
    const passed: [string, TaskOptions, BackgroundTasksOptions, Partial<TaskMessage>][] = [
      ['none', {}, {}, {}],
      [
        'all of them',
        { timeout: 5, retries: 2, delay: 7, priority: -1, key: 'k' },
        {},
        { timeout: 5, retries: backoff, delay: 7, priority: -1, key: 'k' },
      ],
      [
        'retries in detail',
        { retries: { limit: 1, minDelay: 5, jitter: false } },
        {},
        { retries: { limit: 1, minDelay: 5, maxDelay: 30_000, factor: 2, jitter: false } },
      ],
      ['those of the middleware', {}, { timeout: 9, retries: 2 }, { timeout: 9, retries: backoff }],
      [
        "the task's over those of the middleware",
        { timeout: 5, retries: 2 },
        { timeout: 9, retries: 7 },
        { timeout: 5, retries: backoff },
      ],
      [
        'no timeout and no retries, over those of the middleware',
        { timeout: Number.POSITIVE_INFINITY, retries: 0 },
        { timeout: 9, retries: 7 },
        { timeout: 0 },
      ],
      [
        'nothing where they stand for the default',
        {
          timeout: undefined,
          retries: undefined,
          delay: undefined,
          priority: undefined,
          key: undefined,
          when: undefined,
        },
        {},
        {},
      ],
      ['the longest delay', { delay: 31_536_000_000_000 }, {}, { delay: 31_536_000_000_000 }],
      ['zeros', { delay: 0, priority: 0 }, {}, { delay: 0, priority: 0 }],
    ];
    it.each(passed)('passes on %s', async (_, taskOptions, options, expected) => {
      const engine = fakeEngine();
      const given = task('a', () => {}, taskOptions);
      await request({ engine, ...options }, (tasks) => tasks.enqueue(given));
      expect(engine.messages).toStrictEqual([{ name: 'a', args: [], ...expected }]);
    });

    it('with() gives one call its own', async () => {
      const engine = fakeEngine();
      const given = task('a', (_to: string) => {}, { timeout: 5, priority: 1 });
      await request({ engine }, (tasks) => tasks.enqueue(given.with({ key: 'ann', priority: 2 }), 'ann'));
      await request({ engine }, (tasks) => tasks.enqueue(given, 'ann'));
      expect(engine.messages).toEqual([
        { name: 'a', args: ['ann'], timeout: 5, priority: 2, key: 'ann' },
        { name: 'a', args: ['ann'], timeout: 5, priority: 1 },
      ]);
    });

    it('"when" is for add(): ERR_INVALID_OPTION', async () => {
      const given = task('a', () => {}, { when: 'success' });
      expect(await refusal(given)).toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: 'enqueue(): task "a" has "when", which is for add()',
      });
    });

    it('"when" of the middleware does not matter: the task does not wait for the response', async () => {
      const engine = fakeEngine();
      await request({ engine, when: 'success' }, (tasks) => tasks.enqueue(task('a', () => {})));
      expect(engine.messages).toEqual([{ name: 'a', args: [] }]);
    });

    it.each([
      ['delay', -1, 'milliseconds from 0'],
      ['delay', Number.NaN, 'milliseconds from 0'],
      ['delay', 31_536_000_000_001, 'milliseconds from 0 to 31536000000000, which is a thousand years'],
      ['delay', Number.POSITIVE_INFINITY, 'milliseconds from 0'],
      ['delay', '1000', 'milliseconds from 0'],
      ['delay', 2 ** 53, 'milliseconds from 0'],
      ['priority', 1.5, 'a whole number'],
      ['priority', Number.POSITIVE_INFINITY, 'a whole number'],
      ['priority', '1', 'a whole number'],
      ['key', '', 'a string that is not empty'],
      ['key', 7, 'a string that is not empty'],
    ])('%s: %p is refused where the task is defined', (name, value, expected) => {
      for (const define of [
        () => task('a', () => {}, { [name]: value }),
        () => task('a', { [name]: value }),
        () => task('a').with({ [name]: value }),
      ]) {
        expect(define).toThrow(
          expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(expected) }),
        );
      }
    });
  });

  describe('refuses', () => {
    it('without an engine: ERR_NO_ENGINE', async () => {
      const { error } = await request({}, (tasks) => tasks.enqueue(sendMail, 'a', { subject: 'b' }));
      expect(error).toMatchObject({
        name: 'BackgroundTasksError',
        code: 'ERR_NO_ENGINE',
        message: expect.stringContaining('engine'),
      });
    });

    it.each([
      ['a plain function', () => {}, '[Function'],
      ['a name', 'send-mail', "'send-mail'"],
      ['undefined', undefined, 'undefined'],
      ['null', null, 'null'],
      ['what only looks like a task', { name: 'a', with: () => {} }, "name: 'a'"],
    ])('%s: ERR_INVALID_TASK', async (_, given, shown) => {
      expect(await refusal(given)).toMatchObject({
        code: 'ERR_INVALID_TASK',
        message: expect.stringContaining(shown),
      });
    });

    it.each([
      ['a function', [() => {}], 'args[0] is a function'],
      ['a deep value', [1, { a: { b: [0, 1n] } }], 'args[1].a.b[1] is a bigint'],
      ['a Date', [{ at: new Date() }], 'args[0].at is an instance of Date, not a plain object'],
    ])('promise 2: %s among the arguments, before anything is stored', async (_, args, message) => {
      expect(await refusal(sendMail, ...args)).toMatchObject({
        code: 'ERR_TASK_NOT_SERIALIZABLE',
        message: `task "send-mail": ${message}`,
      });
    });

    it('never by a throw: enqueue always returns a promise', async () => {
      await request({}, (tasks) => {
        const enqueue = tasks.enqueue.bind(tasks) as Enqueue;
        for (const given of [undefined, sendMail, () => {}]) {
          const returned = enqueue(given, 1n);
          expect(returned).toBeInstanceOf(Promise);
          returned.catch(() => {});
        }
      });
    });

    it('what is no engine, where the middleware is made', () => {
      for (const engine of [{}, null, 'sqlite', { enqueue() {}, get() {}, close() {} }]) {
        expect(() => backgroundTasks({ engine: engine as unknown as TaskEngine })).toThrow(
          expect.objectContaining({
            code: 'ERR_INVALID_OPTION',
            message: expect.stringContaining('"engine" must be an engine'),
          }),
        );
      }
    });
  });

  describe('add refuses', () => {
    it.each([
      ['delay', { delay: 1 }],
      ['priority', { priority: 1 }],
      ['key', { key: 'k' }],
    ])('a task with "%s", which is for enqueue(): ERR_INVALID_OPTION', async (name, options) => {
      const ran = jest.fn();
      const given = task('a', ran, options);
      const { error } = await request({}, (tasks) => tasks.add(given));
      expect(error).toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: `add(): task "a" has "${name}", which is for enqueue()`,
      });
      expect(ran).not.toHaveBeenCalled();
    });

    it('a remote task: ERR_INVALID_TASK', async () => {
      const { error } = await request({}, (tasks) => tasks.add(task('remote') as unknown as () => void));
      expect(error).toMatchObject({ code: 'ERR_INVALID_TASK' });
    });
  });
});

interface Answer {
  status(code: number): { end(): void };
}
