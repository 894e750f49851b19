// Promise 5: what a task throws is reported once, and goes nowhere else. Jest fails a test during which a rejection stays
// unhandled or an exception uncaught; a bare Node process proves it at the end.

import { execFile } from 'node:child_process';
import { join } from 'node:path';
import { Writable } from 'node:stream';
import { setImmediate as turn } from 'node:timers/promises';
import { format, inspect, promisify } from 'node:util';
import { runInNewContext } from 'node:vm';
import bunyan from 'bunyan';
import express5 from 'express';
import pino from 'pino';
import winston from 'winston';
import {
  type BackgroundTasksOptions,
  backgroundTasks,
  type ErrorContext,
  type Logger,
  type OnError,
  type TaskHandle,
} from '../../lib/index';
import { Reporter } from '../../lib/task/report';
import { deferred } from '../fixtures/deferred';
import { hostileErrors, hostileProxy, hostileReturns } from '../fixtures/hostile';
import type { IsolationReport } from '../fixtures/isolation';
import { expresses, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

/** What console.error printed, as it prints it; it throws where the real one throws. */
let printed: string[];
beforeEach(() => {
  printed = [];
  jest.spyOn(console, 'error').mockImplementation((...args) => {
    printed.push(format(...args));
  });
});
afterEach(() => {
  jest.restoreAllMocks();
});

interface LogRecord {
  err: unknown;
  task: { id: string; name: string; attempt: number };
  request?: string;
}

/** A logger that keeps what it is told. */
function keepingLogger() {
  const records: (LogRecord & { message: string })[] = [];
  const logger: Logger = {
    error(context, message) {
      records.push({ ...(context as LogRecord), message });
    },
  };
  return { logger, records };
}

function keepingOnError() {
  const reports: { error: unknown; context: ErrorContext }[] = [];
  const onError: OnError = (error, context) => {
    reports.push({ error, context });
  };
  return { onError, reports };
}

function raise(value: unknown): never {
  throw value;
}

function neverMind(): void {}

/** Runs a task and one after it, which must succeed, and waits for the reports. */
async function run(task: () => unknown, options: BackgroundTasksOptions, express = express5) {
  const { middleware, respond } = await serveTasks({ onError: undefined, ...options }, express);
  const [handle, next] = await respond((tasks): [TaskHandle, TaskHandle] => [tasks.add(task), tasks.add(neverMind)]);
  await middleware.idle();
  expect(next.status).toBe('succeeded');
  return { handle, outcome: await handle.finished };
}

const ways: [string, (make: () => unknown) => () => unknown][] = [
  ['throws', (make) => () => raise(make())],
  ['rejects with', (make) => async () => raise(make())],
];

describe.each(expresses)('promise 5: isolated (Express %s)', (_version, express) => {
  describe.each(Object.entries(hostileErrors))('a task that fails with %s', (_name, make) => {
    const error = make();

    it.each(ways)('and %s it goes to onError, once', async (_way, toTask) => {
      const { onError, reports } = keepingOnError();
      const { logger, records } = keepingLogger();
      const task = toTask(() => error);
      const { handle, outcome } = await run(task, { onError, logger }, express);
      expect(reports).toHaveLength(1);
      expect(Object.is(reports[0]?.error, error)).toBe(true);
      expect(reports[0]?.context.task.id).toBe(handle.id);
      expect(outcome.status === 'failed' && Object.is(outcome.error, error)).toBe(true);
      expect(records).toHaveLength(0);
      expect(printed).toHaveLength(0);
    });

    it.each(ways)('and %s it goes to the logger, once', async (_way, toTask) => {
      const { logger, records } = keepingLogger();
      const task = toTask(() => error);
      const { handle } = await run(task, { logger }, express);
      expect(records).toHaveLength(1);
      expect(Object.is(records[0]?.err, error)).toBe(true);
      expect(records[0]?.task.id).toBe(handle.id);
      expect(printed).toHaveLength(0);
    });

    it.each(ways)('and %s it goes to the console, once', async (_way, toTask) => {
      const task = toTask(() => error);
      await run(task, {}, express);
      expect(printed).toEqual([
        expect.stringMatching(/^Background task "anonymous" failed(: it threw .+)? \(GET \/0\): /s),
      ]);
    });
  });

  it.each(Object.entries(hostileReturns))(
    'awaits %s, and reports it at most once',
    async (_name, { make, status, value }) => {
      const { onError, reports } = keepingOnError();
      const { outcome } = await run(make, { onError }, express);
      await turn();
      expect(outcome.status).toBe(status);
      expect(outcome).toEqual(status === 'failed' ? { status, error: expect.anything() } : { status, value });
      expect(reports).toHaveLength(status === 'failed' ? 1 : 0);
    },
  );

  it('runs a function that is a Proxy whose every trap throws', async () => {
    const { onError, reports } = keepingOnError();
    const { handle, outcome } = await run(hostileProxy(neverMind), { onError }, express);
    expect(outcome).toEqual({ status: 'failed', error: new Error('hands off') });
    expect(handle.name).toBe('anonymous');
    expect(reports).toHaveLength(1);
  });

  it('runs a function that is a revoked Proxy', async () => {
    const { onError, reports } = keepingOnError();
    const { proxy, revoke } = Proxy.revocable(neverMind, {});
    revoke();
    const { handle, outcome } = await run(proxy, { onError }, express);
    expect(outcome.status).toBe('failed');
    expect(handle.name).toBe('anonymous');
    expect(reports).toHaveLength(1);
  });

  it('runs a function that is a harmless Proxy', async () => {
    const { outcome } = await run(new Proxy(() => 'value', {}), {}, express);
    expect(outcome).toEqual({ status: 'succeeded', value: 'value' });
  });
});

describe('promise 5: isolated, also where onError fails', () => {
  const error = new Error('of the task');
  const failures: [string, (value: unknown) => OnError][] = [
    ['throws', (value) => () => raise(value)],
    ['rejects with', (value) => async () => raise(value)],
    [
      'rejects later with',
      (value) => async () => {
        await turn();
        raise(value);
      },
    ],
  ];

  describe.each(Object.entries(hostileErrors))('%s', (_name, make) => {
    it.each(failures)('is logged beside the error of the task when onError %s it', async (_way, toHook) => {
      const hookError = make();
      const { logger, records } = keepingLogger();
      const { handle } = await run(() => raise(error), { onError: toHook(hookError), logger });
      expect(records).toHaveLength(2);
      expect(records[0]?.err).toBe(error);
      expect(Object.is(records[1]?.err, hookError)).toBe(true);
      expect(records.map(({ task }) => task.id)).toEqual([handle.id, handle.id]);
      expect(records[1]?.message).toMatch(/^onError failed on the error of background task "anonymous"/);
      expect(printed).toHaveLength(0);
    });

    it.each(ways)('is printed beside that of the task when the logger %s it', async (_way, toError) => {
      await run(() => raise(error), { logger: { error: toError(make) } });
      expect(printed).toEqual([
        expect.stringMatching(/^Background task "anonymous" failed \(GET \/0\): Error: of the task\n {4}at /),
        expect.stringMatching(/^The logger of background tasks failed: ?/),
      ]);
    });

    it.each(ways)('is printed with all others when onError and the logger %s it', async (_way, toError) => {
      await run(() => raise(error), { logger: { error: toError(make) }, onError: toError(make) as OnError });
      expect(printed).toHaveLength(4);
      expect(printed.filter((line) => line.startsWith('The logger of background tasks failed:'))).toHaveLength(2);
      expect(printed.filter((line) => line.startsWith('onError failed on the error of'))).toHaveLength(1);
      expect(printed.filter((line) => line.includes('Error: of the task\n    at '))).toHaveLength(1);
    });
  });

  it.each(Object.entries(hostileReturns))('copes with an onError that returns %s', async (_name, { make, status }) => {
    const { logger, records } = keepingLogger();
    await run(() => raise(error), { onError: make as OnError, logger });
    expect(records).toHaveLength(status === 'failed' ? 2 : 0);
  });

  it.each(Object.entries(hostileReturns))('copes with a logger that returns %s', async (_name, { make, status }) => {
    await run(() => raise(error), { logger: { error: make } });
    expect(printed).toHaveLength(status === 'failed' ? 2 : 0);
  });

  it('copes with a logger that loses its method', async () => {
    const logger: Partial<Logger> = { error: neverMind };
    const { middleware, respond } = await serveTasks({ onError: undefined, logger: logger as Logger });
    delete logger.error;
    await respond((tasks) => tasks.add(() => raise(error)));
    await middleware.idle();
    expect(printed).toEqual([
      expect.stringContaining('Error: of the task'),
      expect.stringContaining('logger of background tasks failed: TypeError'),
    ]);
  });

  it('copes with a console that throws', async () => {
    const printing = jest.spyOn(console, 'error').mockImplementation(() => raise(new Error('no console')));
    await run(() => raise(error), {});
    expect(printing).toHaveBeenCalled();
  });

  it('says so of an error that console.error cannot print', async () => {
    const unprintable = { [inspect.custom]: () => raise(new Error('do not look')) };
    await run(() => raise(unprintable), {});
    expect(printed).toEqual([expect.stringMatching(/\): a value that throws when it is looked at$/)]);
  });

  it('copes with a request whose URL was taken away', async () => {
    const { middleware, respond } = await serveTasks({ onError: undefined });
    await respond((tasks, res) => {
      Object.assign(res.req, { originalUrl: undefined });
      tasks.add(() => raise(error));
    });
    await middleware.idle();
    expect(printed).toEqual([expect.stringContaining('Error: of the task')]);
  });
});

describe('onError', () => {
  it('is told of the error, the task, the request and the response', async () => {
    const { onError, reports } = keepingOnError();
    const middleware = backgroundTasks({ onError });
    const app = express5();
    app.use(middleware);
    const sent = deferred<ErrorContext>();
    const error = new Error('boom');
    app.get('/', (req, res) => {
      const { id, name } = res.locals.backgroundTasks.add(function failing() {
        throw error;
      });
      sent.resolve({ task: { id, name, attempt: 1 }, args: [], req, res });
      res.send('sent');
    });
    const { url } = await serve(app);
    await (await fetch(url)).text();
    await middleware.idle();
    const context = await sent.promise;
    expect(reports).toHaveLength(1);
    expect(reports[0]?.error).toBe(error);
    expect(reports[0]?.context.task).toEqual(context.task);
    expect(reports[0]?.context.task.name).toBe('failing');
    expect(reports[0]?.context.req).toBe(context.req);
    expect(reports[0]?.context.res).toBe(context.res);
  });

  it.each<[string, (done: Promise<void>) => BackgroundTasksOptions]>([
    ['onError', (done) => ({ onError: () => done })],
    ['an asynchronous logger', (done) => ({ onError: undefined, logger: { error: () => done } })],
    [
      'the logger that is told of the error after a failed onError',
      (done) => ({
        onError: () => raise('no'),
        logger: { error: ({ err }: { err?: unknown }) => err === 'boom' && done },
      }),
    ],
    [
      'the logger that is told of the failure of onError',
      (done) => ({
        onError: () => raise('no'),
        logger: { error: ({ err }: { err?: unknown }) => err === 'no' && done },
      }),
    ],
  ])('idle() waits for %s, the next task does not', async (_name, toOptions) => {
    const done = deferred();
    const { middleware, respond } = await serveTasks(toOptions(done.promise));
    const next = await respond((tasks) => {
      tasks.add(() => raise('boom'));
      return tasks.add(neverMind);
    });
    await next.finished;
    const isIdle = jest.fn();
    const idle = middleware.idle().then(isIdle);
    await turn();
    expect(isIdle).not.toHaveBeenCalled();
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 1 });
    done.resolve();
    await idle;
  });
});

describe('the default log', () => {
  async function logOf(path: string, task: (() => unknown) | (() => unknown)[], options: BackgroundTasksOptions = {}) {
    const middleware = backgroundTasks(options);
    const app = express5();
    app.use(middleware);
    app.use('/mounted', (_req, res) => {
      for (const each of [task].flat()) res.locals.backgroundTasks.add(each);
      res.send('sent');
    });
    const { url } = await serve(app);
    await (await fetch(`${url}/mounted${path}`, { method: 'POST' })).text();
    await middleware.idle();
  }

  it('says which task failed, why and where, and on which request, without its query', async () => {
    await logOf('/signup?token=secret', function sendWelcome() {
      throw new Error('no mail server');
    });
    expect(printed).toEqual([
      expect.stringMatching(
        /^Background task "sendWelcome" failed \(POST \/mounted\/signup\): Error: no mail server\n {4}at sendWelcome \(.*report\.test\.ts:\d+:\d+\)/,
      ),
    ]);
    expect(printed[0]).not.toContain('secret');
  });

  it('prints the properties and the cause of the error', async () => {
    const cause = Object.assign(new Error('connection refused'), { code: 'ECONNREFUSED' });
    await logOf('/', () => raise(new Error('no mail server', { cause })));
    expect(printed[0]).toMatch(/\[cause\]: Error: connection refused\n/);
    expect(printed[0]).toContain("code: 'ECONNREFUSED'");
  });

  it.each(['/caf%c3%a9', '/%d0%b0', '/%s', '/%%', '/%o%O%j%i%f'])('takes the path %p for no format', async (path) => {
    await logOf(path, () => raise(new Error('no mail server')));
    expect(printed[0]).toMatch(`(POST /mounted${path}): Error: no mail server\n    at `);
  });

  it('does not treat the name of a task as a format', async () => {
    await logOf(
      '/',
      Object.defineProperty(() => raise(new Error('boom')), 'name', { value: '100%c %s' }),
    );
    expect(printed[0]).toMatch('Background task "100%c %s" failed (POST /mounted/): Error: boom\n    at ');
  });

  it.each<[unknown, string]>([
    [undefined, 'undefined'],
    [null, 'null'],
    ['', "''"],
    ['no', "'no'"],
    [{ code: 7 }, '{ code: 7 }'],
    [['a', ['b', ['c']]], "[ 'a', [Array] ]"],
  ])('says what was thrown if it is not an Error: %p', async (value, shown) => {
    const { logger, records } = keepingLogger();
    await logOf('/', () => raise(value), { logger });
    expect(records[0]?.message).toBe(`Background task "anonymous" failed: it threw ${shown}`);
  });

  it.each<[string, Error]>([
    ['an Error', new TypeError('boom')],
    ['a DOMException', new DOMException('boom', 'AbortError')],
    ['an Error of another realm', runInNewContext('new Error("boom")')],
  ])('says of %s that it failed, and leaves the rest to the error', async (_name, error) => {
    const { logger, records } = keepingLogger();
    await logOf('/', () => raise(error), { logger });
    expect(records).toEqual([
      {
        err: error,
        task: { id: expect.any(String), name: 'anonymous', attempt: 1 },
        request: 'POST /mounted/',
        message: 'Background task "anonymous" failed',
      },
    ]);
  });

  it('says after how many attempts', async () => {
    const { logger, records } = keepingLogger();
    await logOf('/', () => raise(new Error('boom')), { logger, retries: { limit: 2, minDelay: 0 } });
    expect(records).toHaveLength(1);
    expect(records[0]?.message).toBe('Background task "anonymous" failed after 3 attempts');
    expect(records[0]?.task.attempt).toBe(3);
  });

  it('tells each failure by itself', async () => {
    await logOf('/', [() => raise(new Error('first')), () => raise(new Error('second'))]);
    expect(printed).toHaveLength(2);
    expect(printed[0]).toContain('Error: first');
    expect(printed[1]).toContain('Error: second');
  });
});

describe('a task without a response', () => {
  const task = { id: '1', name: 'sendWelcome', attempt: 1 };
  const context: ErrorContext = { task, args: ['ada@example.com'] };
  const error = new Error('boom');

  it('is logged without a request', () => {
    const { logger, records } = keepingLogger();
    expect(new Reporter(logger, undefined).report(error, context)).toBeUndefined();
    expect(records).toEqual([{ err: error, task, message: 'Background task "sendWelcome" failed' }]);
  });

  it('is printed without a request', () => {
    expect(new Reporter(undefined, undefined).report(error, context)).toBeUndefined();
    expect(printed).toEqual([expect.stringMatching(/^Background task "sendWelcome" failed: Error: boom\n {4}at /)]);
  });
});

it('what is no failure of a task is logged with its task all the same', () => {
  const { logger, records } = keepingLogger();
  const task = { id: '1', name: 'sendWelcome', attempt: 0 };
  const error = new Error('boom');
  const reporter = new Reporter(logger, undefined);
  expect(reporter.log(error, task, 'another failure')).toBeUndefined();
  expect(reporter.log(error, undefined, 'of no task')).toBeUndefined();
  expect(records).toStrictEqual([
    { err: error, task, message: 'another failure' },
    { err: error, message: 'of no task' },
  ]);
});

describe('loggers', () => {
  const error = Object.assign(new Error('no mail server'), { code: 'ECONNREFUSED' });
  function sendWelcome(): never {
    throw error;
  }
  const message = 'Background task "sendWelcome" failed';

  it('pino works as it is', async () => {
    const lines: string[] = [];
    const { handle } = await run(sendWelcome, {
      logger: pino({ level: 'error' }, { write: (line) => void lines.push(line) }),
    });
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      expect.objectContaining({
        level: 50,
        msg: message,
        err: expect.objectContaining({ type: 'Error', message: error.message, stack: error.stack, code: error.code }),
        task: { id: handle.id, name: 'sendWelcome', attempt: 1 },
        request: 'GET /0',
      }),
    ]);
  });

  it('bunyan works as it is, with the serializers that it brings', async () => {
    const ring = new bunyan.RingBuffer({ limit: 10 });
    const { handle } = await run(sendWelcome, {
      logger: bunyan.createLogger({
        name: 'app',
        serializers: bunyan.stdSerializers,
        streams: [{ type: 'raw', stream: ring, level: 'trace' }],
      }),
    });
    expect(ring.records).toEqual([
      expect.objectContaining({
        level: bunyan.ERROR,
        msg: message,
        err: expect.objectContaining({ message: error.message, stack: error.stack, code: error.code }),
        task: { id: handle.id, name: 'sendWelcome', attempt: 1 },
        request: 'GET /0',
      }),
    ]);
  });

  /** Its format and a transport that keeps what the console transport would write. */
  function winstonLogger() {
    const lines: string[] = [];
    const transport = new winston.transports.Console();
    transport.log = (info, next) => {
      lines.push(info[Symbol.for('message')]);
      next();
    };
    const log = winston.createLogger({ format: winston.format.json(), transports: [transport] });
    const logger: Logger = { error: ({ err }: { err?: unknown }, text) => log.error(text, err) };
    return { lines, logger };
  }

  it('winston works with the line that the guide shows', async () => {
    const { lines, logger } = winstonLogger();
    await run(sendWelcome, { logger });
    expect(lines.map((line) => JSON.parse(line))).toEqual([
      { level: 'error', message: `${message} ${error.message}`, stack: error.stack, code: error.code },
    ]);
  });

  const makers: [string, () => { lines: string[]; logger: Logger }][] = [
    [
      'pino',
      () => {
        const lines: string[] = [];
        return { lines, logger: pino({ level: 'error' }, { write: (line) => void lines.push(line) }) };
      },
    ],
    [
      'bunyan',
      () => {
        const lines: string[] = [];
        const stream = new Writable({ write: (line, _encoding, next) => next(void lines.push(String(line))) });
        return { lines, logger: bunyan.createLogger({ name: 'app', serializers: bunyan.stdSerializers, stream }) };
      },
    ],
    ['winston', winstonLogger],
  ];
  describe.each(makers)('%s or, where that throws, the console', (_name, make) => {
    it.each(Object.entries(hostileErrors))('tells of %s', async (_error, makeError) => {
      const { lines, logger } = make();
      await run(() => raise(makeError()), { logger });
      expect([...lines, ...printed].filter((line) => line.includes('Background task'))).toHaveLength(1);
    });
  });
});

it('promise 5: no hostile value ends a bare Node process', async () => {
  const fixtures = join(__dirname, '../fixtures');
  const args = ['--require', join(fixtures, 'typescript.cjs'), join(fixtures, 'isolation.ts')];
  // Rejects if the process fails, as it does at the first unhandled rejection.
  const { stdout } = await promisify(execFile)(process.execPath, args, { maxBuffer: Number.POSITIVE_INFINITY });
  const reports: IsolationReport[] = JSON.parse(stdout);
  const count = 2 * Object.keys(hostileErrors).length + Object.keys(hostileReturns).length + 1;
  expect(reports).toHaveLength(12);
  for (const { name, stats } of reports) {
    const { pending, running, succeeded, failed } = stats;
    expect({ name, pending, running, all: succeeded + failed }).toEqual({ name, pending: 0, running: 0, all: count });
  }
}, 60_000);
