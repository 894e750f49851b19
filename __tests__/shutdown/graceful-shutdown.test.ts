// gracefulShutdown() in this process: its order, its time, what it reports, what starts it. Jest gives each file a `process` of
// its own, which gets no real signals: they are emitted. Real ones are in processes.test.ts.

import { once } from 'node:events';
import { createServer } from 'node:http';
import { connect } from 'node:net';
import express from 'express';
import { backgroundTasks, type TaskWorker, task } from '../../lib/index.js';
import { type GracefulShutdown, gracefulShutdown, type ShutdownOptions } from '../../lib/shutdown/index.js';
import { memory } from '../../lib/testing/index.js';
import { deferred } from '../fixtures/deferred.js';
import { serve } from '../fixtures/serve.js';

const never = new Promise<never>(() => {});

const events = [
  'SIGTERM',
  'SIGINT',
  'SIGQUIT',
  'SIGHUP',
  'SIGUSR2',
  'uncaughtException',
  'unhandledRejection',
  'message',
];
const othersEvents = ['SIGSEGV', 'SIGBUS', 'SIGFPE', 'SIGILL', 'SIGTRAP', 'SIGABRT', 'beforeExit'];

/** Any event with any value. */
const emitter: NodeJS.EventEmitter = process;

const listenersOf = (names: string[]): unknown[] => names.map((name) => process.listeners(name as 'SIGTERM'));

/** What is logged, and what the process would exit with. */
let logged: { err: unknown; message: string }[];
let exit: jest.SpiedFunction<typeof process.exit>;
let exited: Promise<unknown>;
let before: unknown[];
const logger = { error: ({ err }: { err?: unknown }, message: string) => void logged.push({ err, message }) };

beforeEach(() => {
  logged = [];
  before = listenersOf(events);
  const called = deferred<unknown>();
  exited = called.promise;
  exit = jest.spyOn(process, 'exit').mockImplementation((code) => called.resolve(code) as never);
});

afterEach(() => {
  for (const [index, name] of events.entries()) {
    for (const listener of process.listeners(name as 'SIGTERM')) {
      if (!(before[index] as unknown[]).includes(listener)) process.off(name, listener);
    }
  }
  exit.mockRestore();
});

function shutdownWith(options: ShutdownOptions): GracefulShutdown {
  return gracefulShutdown(null, { logger, ...options });
}

/** Tasks of which one has been added and never ends. */
async function endlessTasks() {
  const tasks = backgroundTasks({ onError: () => {} });
  const app = express();
  app.use(tasks);
  app.get('/', (_req, res) => {
    res.locals.backgroundTasks.add(function endless() {
      return never;
    });
    res.end();
  });
  const { url } = await serve(app);
  await (await fetch(url)).text();
  return tasks;
}

describe('close()', () => {
  it('closes server, tasks, workers and engine, then calls onClose with the report: in this order', async () => {
    const order: string[] = [];
    const engine = memory();
    const worker = await engine.work([task('nothing', () => {})]);
    const tasks = backgroundTasks({ engine });
    const { server } = await serve(express().use(tasks));
    server.once('close', () => order.push('server'));
    for (const [name, closed] of Object.entries({ tasks, worker, engine })) {
      const close = closed.close.bind(closed) as () => Promise<unknown>;
      closed.close = jest.fn(async (...args) => {
        order.push(`${name} begins`);
        const result = await Reflect.apply(close, closed, args);
        order.push(name);
        return result;
      }) as never;
    }
    const onClose = jest.fn(() => void order.push('onClose'));

    const report = await gracefulShutdown(server, { tasks, workers: [worker], engine, onClose, logger }).close();
    const closes = ['tasks', 'worker', 'engine'].flatMap((name) => [`${name} begins`, name]);
    expect(order).toEqual(['server', ...closes, 'onClose']);
    expect(onClose).toHaveBeenCalledWith(report);
    expect(report).toEqual({ unanswered: 0, tasks: { succeeded: 0, failed: 0, abandoned: [] }, failures: [] });
    expect(logged).toEqual([]);
    expect(exit).not.toHaveBeenCalled();
  });

  it('goes on behind each phase that fails, logs each error, and never rejects', async () => {
    const errors = ['tasks', 'worker', 'other worker', 'engine', 'onClose'].map((name) => new Error(name));
    const [ofTasks, ofWorker, ofOther, ofEngine, ofHook] = errors;
    const tasks = Object.assign(backgroundTasks(), { close: () => Promise.reject(ofTasks) });
    const workerWith = (error: unknown): TaskWorker => ({
      close: () => Promise.reject(error),
      health: () => ({ healthy: true, running: 0, lastPollAt: new Date() }),
    });
    const engine = Object.assign(memory(), { close: () => Promise.reject(ofEngine) });
    const shutdown = shutdownWith({
      tasks,
      workers: [workerWith(ofWorker), workerWith(ofOther)],
      engine,
      onClose() {
        throw ofHook;
      },
    });
    const { failures } = await shutdown.close();
    expect(failures).toEqual(
      ['tasks', 'workers', 'workers', 'engine', 'onClose'].map((phase, index) => ({ phase, error: errors[index] })),
    );
    expect(logged).toEqual(
      failures.map(({ phase, error }) => ({ err: error, message: `While shutting down, "${phase}" failed` })),
    );
  });

  it('leaves the later phases their time where one never ends, and still tells what it fails with later', async () => {
    const late = deferred();
    const engine = Object.assign(memory(), { close: () => late.promise });
    const onClose = jest.fn();
    const { failures } = await shutdownWith({ engine, onClose, timeout: 100 }).close();
    expect(onClose).toHaveBeenCalledTimes(1);
    expect(failures).toEqual([
      {
        phase: 'engine',
        error: expect.objectContaining({ message: expect.stringMatching(/^it was not over after (50|4\d) ms$/) }),
      },
    ]);
    const later = new Error('later');
    late.reject(later);
    await new Promise(setImmediate);
    expect(failures[1]).toEqual({ phase: 'engine', error: later });
  });

  it('reports the requests that were cut off, and the tasks that were given up', async () => {
    const tasks = await endlessTasks();
    const { server, port } = await serve(express().get('/', () => {}));
    const shutdown = gracefulShutdown(server, { tasks, timeout: 4000, logger });
    const socket = connect(port, '127.0.0.1');
    const came = once(server, 'request');
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n');
    await came;
    const report = await shutdown.close();
    expect(report).toMatchObject({
      unanswered: 1,
      tasks: { succeeded: 0, failed: 0, abandoned: [{ name: 'endless' }] },
    });
    expect(report.failures.map(({ phase, error }) => `${phase}: ${error}`)).toEqual([
      'requests: Error: requests that were cut off before they were answered: 1',
    ]);
  });

  describe('tells tasks and workers how long they may take', () => {
    async function told(timeout: number | undefined): Promise<number[]> {
      const tasks = backgroundTasks();
      const closeTasks = jest.spyOn(tasks, 'close');
      const engine = memory();
      const worker = await engine.work([]);
      const closeWorker = jest.spyOn(worker, 'close');
      await shutdownWith({ tasks, workers: [worker], engine, timeout, onClose: () => {} }).close();
      return [closeTasks, closeWorker].map(({ mock }) => mock.calls[0]?.[0]?.timeout ?? 0);
    }

    it.each([9000, undefined])(
      '%s ms for all: 3 parts of 8 for each, less a tenth for what follows',
      async (timeout) => {
        const [ofTasks = 0, ofWorkers = 0] = await told(timeout);
        expect([ofTasks, ofWorkers].every(Number.isInteger)).toBe(true); // Reports of what was given up show it.
        expect(ofTasks).toBeLessThanOrEqual((9000 * 3 * 0.9) / 8);
        expect(ofTasks).toBeGreaterThan((9000 * 3 * 0.9) / 8 - 1000);
        // What the tasks did not need.
        expect(ofWorkers).toBeLessThanOrEqual((9000 * 6 * 0.9) / 8);
        expect(ofWorkers).toBeGreaterThan((9000 * 6 * 0.9) / 8 - 1000);
      },
    );

    it('Infinity: as long as they like', async () => {
      expect(await told(Number.POSITIVE_INFINITY)).toEqual([Number.POSITIVE_INFINITY, Number.POSITIVE_INFINITY]);
    });
  });

  it('has no time left for a phase where the one before held the event loop', async () => {
    const tasks = backgroundTasks();
    const close = jest.spyOn(tasks, 'close');
    const server = createServer().once('close', () => {
      const end = performance.now() + 60;
      while (performance.now() < end);
    });
    await gracefulShutdown(server, { tasks, timeout: 20, logger }).close();
    expect(close).toHaveBeenCalledWith({ timeout: 0 });
  });

  it('shuts down once, however often it is called, and removes its listeners', async () => {
    const onClose = jest.fn();
    const { server } = await serve(express());
    const ofServer = () => Object.fromEntries(server.eventNames().map((name) => [name, server.listenerCount(name)]));
    const atFirst = ofServer();
    const shutdown = gracefulShutdown(server, { onClose });
    expect(listenersOf(events)).not.toEqual(before);
    const reports = await Promise.all([shutdown.close(), shutdown.close()]);
    expect(reports[0]).toBe(reports[1]);
    expect(onClose).toHaveBeenCalledTimes(1);
    expect(listenersOf(events)).toEqual(before);
    expect(ofServer()).toEqual(atFirst);
  });

  it('has nothing to do without a server and without options', async () => {
    expect(await gracefulShutdown(null).close()).toEqual({ unanswered: 0, failures: [] });
  });
});

describe('what starts it', () => {
  it.each(['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR2'] as const)('%s: it exits with 0', async (signal) => {
    const onClose = jest.fn();
    shutdownWith({ onClose });
    process.emit(signal, signal);
    expect(await exited).toBe(0);
    expect(onClose).toHaveBeenCalledWith({ signal, unanswered: 0, failures: [] });
  });

  it('a signal that comes while close() is under way: it exits behind it', async () => {
    const goOn = deferred();
    const onClose = jest.fn(() => goOn.promise);
    const closed = shutdownWith({ onClose }).close();
    process.emit('SIGTERM', 'SIGTERM');
    goOn.resolve();
    expect(await exited).toBe(0);
    expect(await closed).toMatchObject({ signal: 'SIGTERM' });
    expect(onClose).toHaveBeenCalledTimes(1);
  });

  it.each([new Error('nobody caught it'), undefined, 'a text'])(
    '%s, that nobody caught: it exits with 1',
    async (error) => {
      const onClose = jest.fn();
      shutdownWith({ onClose });
      emitter.emit('uncaughtException', error);
      expect(await exited).toBe(1);
      expect(onClose).toHaveBeenCalledWith({ error, unanswered: 0, failures: [] });
      expect(logged).toEqual([{ err: error, message: 'An error that nobody caught: the process shuts down' }]);
    },
  );

  it('the message "shutdown", as PM2 sends it, and no other one', async () => {
    shutdownWith({});
    process.emit('message', { type: 'shutdown' }, undefined);
    await new Promise(setImmediate);
    expect(exit).not.toHaveBeenCalled();
    process.emit('message', 'shutdown', undefined);
    expect(await exited).toBe(0);
  });

  it('neither the signals of a crash nor the end of the process', () => {
    const others = listenersOf(othersEvents);
    shutdownWith({});
    expect(listenersOf(othersEvents)).toEqual(others);
  });

  it('nothing any more after uninstall()', async () => {
    const { server, url } = await serve(express().get('/', (_req, res) => void res.send('answered')));
    gracefulShutdown(server).uninstall();
    expect(listenersOf(events)).toEqual(before);
    expect(await (await fetch(url)).text()).toBe('answered');
  });

  it('no message any more once its server is gone, since a listener would keep a child process alive', async () => {
    const server = createServer().listen(0);
    await once(server, 'listening');
    gracefulShutdown(server);
    const listeners = process.listenerCount('message');
    server.close();
    await once(server, 'close');
    expect(process.listenerCount('message')).toBe(listeners - 1);
  });
});

describe('the exit code is 1', () => {
  it('where a phase failed', async () => {
    shutdownWith({ onClose: () => Promise.reject(new Error('the database is away')) });
    process.emit('SIGTERM', 'SIGTERM');
    expect(await exited).toBe(1);
  });

  it('where a task was given up', async () => {
    shutdownWith({ tasks: await endlessTasks(), timeout: 3000 });
    process.emit('SIGTERM', 'SIGTERM');
    expect(await exited).toBe(1);
    expect(logged).toEqual([]); // Its own onError was told.
  });
});

describe('a second one ends the process at once, with 1, and says what is lost', () => {
  it('signal', async () => {
    const tasks = await endlessTasks();
    shutdownWith({ tasks, timeout: 1000 });
    process.emit('SIGTERM', 'SIGTERM');
    process.emit('SIGINT', 'SIGINT');
    expect(exit).toHaveBeenCalledWith(1);
    expect(logged).toEqual([
      { err: 'SIGINT', message: 'A second signal ends the process at once, with 1 tasks that had not ended' },
    ]);
    await tasks.close({ timeout: 0 });
  });

  it('signal of the same kind, unless it is an echo of the first one', async () => {
    const goOn = deferred();
    shutdownWith({ onClose: () => goOn.promise });
    process.emit('SIGINT', 'SIGINT');
    const sentAt = performance.now();
    process.emit('SIGINT', 'SIGINT');
    expect(exit).not.toHaveBeenCalled();
    while (performance.now() - sentAt <= 250) await new Promise(setImmediate);
    process.emit('SIGINT', 'SIGINT');
    expect(exit).toHaveBeenCalledWith(1);
    goOn.resolve();
  });

  it('error', async () => {
    shutdownWith({ onClose: () => {} });
    process.emit('SIGTERM', 'SIGTERM');
    const error = new Error('nobody caught it');
    emitter.emit('unhandledRejection', error);
    expect(exit).toHaveBeenCalledWith(1);
    expect(logged).toEqual([
      { err: error, message: 'A second error ends the process at once, with 0 tasks that had not ended' },
    ]);
  });
});

describe('at the call it refuses, with ERR_INVALID_OPTION,', () => {
  it.each([
    ['an app', express(), 'must be a server, such as app.listen() returns, or null, not'],
    ['no server at all', undefined, 'not undefined'],
    ['a promise', Promise.resolve(createServer()), 'not a promise'],
  ])('%s', (_what, server, message) => {
    const call = (): unknown => gracefulShutdown(server as never);
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
    expect(call).toThrow(message);
  });

  it.each([
    ['timeout', 0],
    ['timeout', '9s'],
    ['tasks', {}],
    ['tasks', null],
    ['workers', memory().work([])],
    ['workers', [memory().work([])]],
    ['engine', 'sqlite'],
    ['onClose', 'close'],
    ['logger', {}],
    ['signals', ['SIGTERM']],
  ])('%s: %p', (name, value) => {
    const call = (): unknown => gracefulShutdown(null, { [name]: value });
    expect(call).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
    expect(call).toThrow(`"${name}"`);
    expect(listenersOf(events)).toEqual(before);
  });
});
