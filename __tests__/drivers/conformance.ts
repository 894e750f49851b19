// The conformance suite: what every engine must do, run against each of them. To test a driver of your own, follow the steps
// under "Writing an engine" in docs/engines.md.

import { AsyncLocalStorage } from 'node:async_hooks';
import { type ChildProcess, fork } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { subscribe, tracingChannel, unsubscribe } from 'node:diagnostics_channel';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  currentTask,
  type EnqueueTrace,
  enqueue,
  type TaskEngine,
  type TaskMessage,
  type TaskTrace,
  task,
} from '../../lib/index.js';
import { type Sent, send } from './fixtures/send.js';
import {
  backoff,
  eventually,
  exited,
  failure,
  Gate,
  kill,
  over,
  reaches,
  reporter,
  Seen,
  sorted,
} from './fixtures/suite-tools.js';
import type { WorkerReport } from './fixtures/worker-process.js';
import { type Ability, describeOperations } from './operations.js';

export type { Ability } from './operations.js';

export interface EngineUnderTest {
  /** The absolute path of a module that exports `createEngine(config)`. The suite's child processes load it too. */
  module: string;
  /** Makes an empty store for one test. */
  createStore(): EngineStore | Promise<EngineStore>;
  /** The same, of a store that can be stopped and started. Absent where there is nothing that could stop. */
  createFragileStore?(): FragileStore | Promise<FragileStore>;
  lacks?: readonly Ability[];
  /** How long a test may take, in ms. Default 30000. */
  patience?: number;
  /** Half of the suite, so that the two halves can run beside each other in files of their own. Default: the whole. */
  part?: 'tasks' | 'operations';
}

export interface EngineStore {
  /** What `createEngine` is given. JSON. All engines that are made with it share the store, as several processes would. */
  config: unknown;
  /** Called when all engines are closed. */
  remove(): void | Promise<void>;
}

export interface FragileStore extends EngineStore {
  stop(): void | Promise<void>;
  start(): void | Promise<void>;
}

export function describeConformance(name: string, subject: EngineUnderTest): void {
  const { lacks = [], patience = 30_000, part } = subject;
  const can = (ability: Ability): boolean => !lacks.includes(ability);

  describe(`${name}: conformance`, () => {
    let store: EngineStore;
    const engines: TaskEngine[] = [];
    const children: ChildProcess[] = [];
    const escaped: unknown[] = [];
    const onEscaped = (error: unknown): void => {
      escaped.push(error);
    };

    async function openEngine(): Promise<TaskEngine> {
      const { createEngine } = require(subject.module);
      const engine: TaskEngine = await createEngine(store.config);
      engines.push(engine);
      return engine;
    }

    /** A process with an engine of its own over the same store. */
    function startProcess(mode: 'work' | 'once'): { child: ChildProcess; reports: Seen<WorkerReport> } {
      const child = fork(
        join(__dirname, 'fixtures/worker-process.ts'),
        [mode, subject.module, JSON.stringify(store.config)],
        { execArgv: ['--require', join(__dirname, '../fixtures/typescript.cjs')] },
      );
      children.push(child);
      const reports = new Seen<WorkerReport>();
      child.on('message', (report) => reports.add(report as WorkerReport));
      return { child, reports };
    }

    async function startWorkerProcess(): Promise<{ child: ChildProcess; reports: Seen<WorkerReport> }> {
      const started = startProcess('work');
      await started.reports.first((report) => report.event === 'ready');
      return started;
    }

    const test = (title: string, body: () => Promise<void>): void => it(title, body, patience);

    beforeEach(async () => {
      process.on('unhandledRejection', onEscaped);
      process.on('uncaughtException', onEscaped);
      store = await subject.createStore();
    }, patience);

    afterEach(async () => {
      await Promise.all(children.splice(0).map(kill));
      await Promise.all(engines.splice(0).map((engine) => engine.close()));
      await store.remove();
      process.off('unhandledRejection', onEscaped);
      process.off('uncaughtException', onEscaped);
      expect(escaped.splice(0)).toEqual([]);
    }, patience);

    if (part !== 'tasks') describeOperations({ can, test, openEngine, startWorkerProcess });
    if (part === 'operations') return;

    describe('enqueue', () => {
      test('resolves with an id, another one for each task', async () => {
        const engine = await openEngine();
        const first = await send(engine, { name: 'a', args: [1] });
        const second = await send(engine, { name: 'a', args: [1] });
        expect(typeof first.id).toBe('string');
        expect(first.id).not.toBe('');
        expect(second.id).not.toBe(first.id);
      });

      test('after close() it rejects with ERR_ENGINE_UNAVAILABLE; close() may be called twice', async () => {
        const engine = await openEngine();
        await send(engine, { name: 'a', args: [] });
        await Promise.all([engine.close(), engine.close()]);
        await engine.close();
        await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      });

      const options: [Ability, Partial<TaskMessage>][] = [
        ['timeout', { timeout: 1000 }],
        ['retries', { retries: backoff(3) }],
        ['delay', { delay: 10 }],
        ['priority', { priority: 1 }],
        ['key', { key: 'a' }],
      ];
      for (const [ability, option] of options) {
        if (can(ability)) {
          test(`takes "${ability}"`, async () => {
            const engine = await openEngine();
            await expect(send(engine, { name: 'a', args: [], ...option })).resolves.toHaveProperty('id');
          });
        } else {
          test(`refuses "${ability}", which the engine does not have, with ERR_INVALID_OPTION`, async () => {
            const engine = await openEngine();
            const refused = send(engine, { name: 'a', args: [], ...option });
            await expect(refused).rejects.toMatchObject({
              code: 'ERR_INVALID_OPTION',
              message: expect.stringContaining(ability),
            });
          });
        }
      }
    });

    const { createFragileStore } = subject;
    if (createFragileStore !== undefined)
      describe('the store is out of reach', () => {
        let fragile: FragileStore;

        beforeEach(async () => {
          await store.remove();
          fragile = await createFragileStore();
          store = fragile;
        }, patience);

        test('enqueue and ready() reject with ERR_ENGINE_UNAVAILABLE, status 503, within 5 s, and work again afterwards', async () => {
          const engine = await openEngine();
          await engine.ready();
          await send(engine, { name: 'a', args: [] });
          await fragile.stop();
          try {
            const start = Date.now();
            const attempts = [1, 2, 3].map((n) => failure(send(engine, { name: 'a', args: [n] })));
            if (can('ready')) attempts.push(failure(engine.ready()));
            for (const error of await Promise.all(attempts)) {
              expect(error).toMatchObject({
                name: 'BackgroundTasksError',
                code: 'ERR_ENGINE_UNAVAILABLE',
                status: 503,
              });
            }
            expect(Date.now() - start).toBeLessThan(5500); // Half a second for a busy machine.
          } finally {
            await fragile.start();
          }
          const { id } = await eventually(() => send(engine, { name: 'a', args: [] }), patience / 2);
          if (can('get')) expect(await engine.get(id)).toMatchObject({ id, state: 'queued' });
          await engine.ready();
        });

        if (can('work')) {
          test('a worker, idle or not, goes on by itself once the store is back', async () => {
            const engine = await openEngine();
            const ran = new Seen<unknown>();
            const gate = new Gate();
            const worker = await engine.work([
              task('conformance.ran', (value: number) => ran.add(value)),
              task('conformance.gate', async () => {
                ran.add('waits');
                await gate.opened;
              }),
            ]);
            await send(engine, { name: 'conformance.ran', args: [1] });
            await ran.count(1);
            const waiting = await send(engine, { name: 'conformance.gate', args: [] });
            await ran.count(2);
            await fragile.stop();
            gate.open(); // Ends while nobody can store that it did.
            await sleep(1000);
            await fragile.start();
            await eventually(() => send(engine, { name: 'conformance.ran', args: [2] }), patience / 2);
            await ran.first((value) => value === 2);
            if (can('get')) expect(await over(engine, waiting.id)).toMatchObject({ state: 'succeeded' });
            await worker.close();
          });
        }
      });

    if (can('get')) {
      test('get: undefined for an id that is unknown or cannot be one', async () => {
        const engine = await openEngine();
        for (const id of [randomUUID(), '', '0', '-1', 'a:b', '../a', "'", '\0', '\ud800', 'x'.repeat(10_000)]) {
          expect(await engine.get(id)).toBeUndefined();
        }
      });

      test('get: a task that waits is queued, without result, error or times of a run', async () => {
        const engine = await openEngine();
        const before = Date.now();
        const { id } = await send(engine, { name: 'conformance.waits', args: ['secret'] });
        const record = await engine.get(id);
        expect(record).toEqual({
          id,
          name: 'conformance.waits',
          state: 'queued',
          attempts: 0,
          args: ['secret'],
          enqueuedAt: expect.any(Date),
        });
        expect(await engine.get(id, { result: false })).not.toHaveProperty('args');
        // The store may have a clock of its own.
        expect(Math.abs(Number(record?.enqueuedAt) - before)).toBeLessThan(10_000);
      });

      test('get: another engine over the same store knows the task', async () => {
        const { id } = await send(await openEngine(), { name: 'a', args: [] });
        expect(await (await openEngine()).get(id)).toMatchObject({ id, state: 'queued' });
      });

      test('get: finds an id in upper case', async () => {
        const engine = await openEngine();
        const { id } = await send(engine, { name: 'a', args: [] });
        expect(await engine.get(id.toUpperCase())).toMatchObject({ id, state: 'queued' });
      });
    } else {
      test('get: rejects with ERR_INVALID_OPTION, since the engine does not have it', async () => {
        const engine = await openEngine();
        const { id } = await send(engine, { name: 'a', args: [] });
        await expect(engine.get(id)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });
    }

    if (!can('work')) {
      test('work: rejects with ERR_INVALID_OPTION, since the engine does not have it', async () => {
        const engine = await openEngine();
        await expect(engine.work([task('a', () => {})])).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });
      return;
    }

    /** Starts a worker that adds the arguments of each task it runs to what is returned. */
    async function record(engine: TaskEngine, name = 'conformance.record'): Promise<Seen<unknown[]>> {
      const seen = new Seen<unknown[]>();
      await engine.work([task(name, (...args: unknown[]) => seen.add(args))]);
      return seen;
    }

    describe('a task', () => {
      test('runs in a worker, and get() tells of it: queued, running, succeeded with the result', async () => {
        const engine = await openEngine();
        const started = new Gate();
        const gate = new Gate();
        const { id } = await send(engine, { name: 'conformance.sum', args: [1, 2] });
        expect(await engine.get(id)).toMatchObject({ state: 'queued', attempts: 0 });
        await engine.work([
          task('conformance.sum', async (a: number, b: number) => {
            started.open();
            await gate.opened;
            return { sum: a + b };
          }),
        ]);
        await started.opened;
        const running = await engine.get(id);
        expect(running).toMatchObject({ id, state: 'running', attempts: 1, startedAt: expect.any(Date) });
        expect(running).not.toHaveProperty('result');
        expect(running).not.toHaveProperty('finishedAt');
        gate.open();
        const finished = await over(engine, id);
        expect(finished).toEqual({
          id,
          name: 'conformance.sum',
          state: 'succeeded',
          attempts: 1,
          args: [1, 2],
          result: { sum: 3 },
          enqueuedAt: expect.any(Date),
          startedAt: expect.any(Date),
          finishedAt: expect.any(Date),
        });
        expect(Number(finished.startedAt)).toBeGreaterThanOrEqual(Number(finished.enqueuedAt));
        expect(Number(finished.finishedAt)).toBeGreaterThanOrEqual(Number(finished.startedAt));
      });

      if (can('processes')) {
        test('that was enqueued by one process runs in another one', async () => {
          const engine = await openEngine();
          const { reports } = await startWorkerProcess();
          const { id } = await send(engine, { name: 'conformance.record', args: ['from afar'] });
          const ran = await reports.first((report) => report.event === 'ran');
          expect(ran).toEqual({ event: 'ran', args: ['from afar'], id, attempt: 1 });
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        });
      }

      test('gets its arguments to the letter', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        let deep: unknown = 'bottom';
        for (let level = 0; level < 500; level++) deep = level % 2 === 0 ? [deep] : { deep };
        const lists: unknown[][] = [
          [],
          [null, true, false, 0, -0.5, 1e21, 5e-324, Number.MAX_SAFE_INTEGER, ''],
          [
            'žluťoučký 🐎 \u202e right to left',
            '\u0000',
            'a\u0000b',
            '\\u0000',
            '\ud800',
            '\udc00\ud800',
            '\u2028',
            '\r\n\t',
          ],
          [{ '': 1, __proto__x: 2, 'a.b': [[], {}], $ref: '#', '\u0000': 3, 'ž"\'\\': null }],
          [deep],
          ["'; DROP TABLE background_tasks; --", '%s {0}', '<!--'],
          ['x'.repeat(1_000_000)],
          ['ž'.repeat(500_000)],
        ];
        for (const args of lists) {
          await send(engine, { name: 'conformance.record', args });
          expect(await seen.next()).toEqual(args);
        }
      });

      test('gets -0, and no trailing arguments that are undefined', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        await send(engine, { name: 'conformance.record', args: [-0, [-0], '-0', undefined, undefined] });
        expect(await seen.next()).toEqual([-0, [-0], '-0']);
      });

      test('gets its arguments as they were when enqueue was called', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        const args = [{ value: 'before' }];
        const enqueued = send(engine, { name: 'conformance.record', args });
        args[0] = { value: 'replaced' };
        args.push({ value: 'added' });
        await enqueued;
        expect(await seen.next()).toEqual([{ value: 'before' }]);
      });

      test('whose name has blanks, slashes, colons and letters of any language runs', async () => {
        const engine = await openEngine();
        const names = ['a b', 'mail/send:now', 'Zpráva 📮', '*', "it's", 'x'.repeat(200)];
        await engine.work(names.map((name) => task(name, () => `ran ${name}`)));
        for (const name of names) {
          const { id } = await send(engine, { name, args: [] });
          expect(await over(engine, id)).toMatchObject({ name, state: 'succeeded', result: `ran ${name}` });
        }
      });

      test('whose result is undefined or cannot be stored has succeeded, without a result', async () => {
        const engine = await openEngine();
        const cycle: unknown[] = [];
        cycle.push(cycle);
        const results = [undefined, 1n, cycle, () => {}];
        await engine.work([task('conformance.result', (index: number) => results[index])]);
        for (const index of results.keys()) {
          const { id } = await send(engine, { name: 'conformance.result', args: [index] });
          const finished = await over(engine, id);
          expect(finished.state).toBe('succeeded');
          expect(finished).not.toHaveProperty('result');
        }
      });

      test('keeps a result that is null, false, empty or full of strange characters', async () => {
        const engine = await openEngine();
        const results = [null, false, 0, '', [], '\u0000\ud800', { a: ['\u0000'] }];
        await engine.work([task('conformance.result', (index: number) => results[index])]);
        for (const [index, result] of results.entries()) {
          const { id } = await send(engine, { name: 'conformance.result', args: [index] });
          const finished = await over(engine, id);
          expect(finished).toHaveProperty('result');
          expect(finished.result).toEqual(result);
        }
      });

      test('is one of a hundred enqueued at once: every one runs, once', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        const numbers = Array.from({ length: 100 }, (_, index) => index);
        const enqueued = await Promise.all(
          numbers.map((number) => send(engine, { name: 'conformance.record', args: [number] })),
        );
        for (const { id } of enqueued)
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        expect(sorted(seen.all.map(([number]) => Number(number)))).toEqual(numbers);
      });

      test('sees currentTask() through its awaits: id, name, attempt and a signal', async () => {
        const engine = await openEngine();
        const contexts = new Seen<unknown>();
        await engine.work([
          task('conformance.context', async () => {
            await sleep(1);
            const context = currentTask();
            contexts.add({
              id: context?.id,
              name: context?.name,
              attempt: context?.attempt,
              aborted: context?.signal.aborted,
            });
          }),
        ]);
        const { id } = await send(engine, { name: 'conformance.context', args: [] });
        expect(await contexts.next()).toEqual({ id, name: 'conformance.context', attempt: 1, aborted: false });
      });

      test('enqueues another one by enqueue(), on the engine of its worker', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        const second = task('conformance.record', (_value: string) => {});
        await engine.work([task('conformance.first', () => enqueue(second, 'from within'))]);
        const { id } = await send(engine, { name: 'conformance.first', args: [] });
        expect(await seen.next()).toEqual(['from within']);
        const { result } = await over(engine, id);
        expect(await over(engine, (result as { id: string }).id)).toMatchObject({ name: 'conformance.record' });
      });

      test('sees the stores of the work() call, and none that another task has entered', async () => {
        const engine = await openEngine();
        const storage = new AsyncLocalStorage<string>();
        const seen = new Seen<string | undefined>();
        await storage.run('working', () =>
          engine.work([
            task('conformance.enters', () => {
              seen.add(storage.getStore());
              storage.enterWith('entered');
            }),
          ]),
        );
        for (let count = 0; count < 3; count++) await send(engine, { name: 'conformance.enters', args: [] });
        expect(await seen.count(3)).toEqual(['working', 'working', 'working']);
      });

      test('is traced on the channel express-background-tasks:task, without req and res', async () => {
        const engine = await openEngine();
        const events: string[] = [];
        const traces = new Set<unknown>();
        const on = (event: string) => (trace: unknown) => {
          events.push(event);
          traces.add(trace);
        };
        const subscribers = {
          start: on('start'),
          end: on('end'),
          asyncStart: on('asyncStart'),
          asyncEnd: on('asyncEnd'),
          error: on('error'),
        };
        const channel = tracingChannel<unknown, TaskTrace>('express-background-tasks:task');
        channel.subscribe(subscribers);
        try {
          await engine.work([task('conformance.traced', async (value: number) => value + 1)]);
          const { id } = await send(engine, { name: 'conformance.traced', args: [1] });
          await over(engine, id);
          expect(events).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
          const info = { id, name: 'conformance.traced', attempt: 1 };
          const message = { id, headers: {} };
          const engineName = expect.any(String);
          expect([...traces]).toEqual([{ task: info, args: [1], engine: engineName, message, result: 2 }]);
        } finally {
          channel.unsubscribe(subscribers);
        }
      });

      test('the tracing channel has the headers of the message at each attempt', async () => {
        const engine = await openEngine();
        const seen = new Seen<unknown>();
        const onStart = (trace: unknown): void => seen.add((trace as TaskTrace).message?.headers);
        const onEnqueue = (trace: unknown): void => {
          const { args, message } = trace as EnqueueTrace;
          message.headers = { to: String(args[0]), 'ž\u0000': '\ud800"' };
        };
        subscribe('tracing:express-background-tasks:enqueue:start', onEnqueue);
        subscribe('tracing:express-background-tasks:task:start', onStart);
        try {
          const failing = task(
            'conformance.failing',
            async (_to: string) => {
              if (currentTask()?.attempt === 1) throw new Error('once');
            },
            can('retries') ? { retries: backoff(1) } : {},
          );
          const { id } = await engine.enqueue(failing, 'a');
          await engine.work([failing, task('conformance.many', (_to: string) => {})], { onError: () => {} });
          await over(engine, id);
          const first = { to: 'a', 'ž\u0000': '\ud800"' };
          expect(await seen.count(can('retries') ? 2 : 1)).toEqual(can('retries') ? [first, first] : [first]);
          if (!can('enqueueMany')) return;
          await engine.enqueueMany(task<[to: string]>('conformance.many'), [['b'], ['c']]);
          await seen.first((headers) => (headers as { to: string }).to === 'b');
          await seen.first((headers) => (headers as { to: string }).to === 'c');
        } finally {
          unsubscribe('tracing:express-background-tasks:enqueue:start', onEnqueue);
          unsubscribe('tracing:express-background-tasks:task:start', onStart);
        }
      });
    });

    describe('failure', () => {
      test('without retries the task fails at its first error, which is kept and reported once', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const thrown = new TypeError('the disk is full 🫠');
        await engine.work([task('conformance.fails', () => Promise.reject(thrown))], { onError });
        const { id } = await send(engine, { name: 'conformance.fails', args: [] });
        const failed = await over(engine, id);
        expect(failed).toEqual({
          id,
          name: 'conformance.fails',
          state: 'failed',
          attempts: 1,
          args: [],
          error: { name: 'TypeError', message: 'the disk is full 🫠', stack: expect.any(String) },
          enqueuedAt: expect.any(Date),
          startedAt: expect.any(Date),
          finishedAt: expect.any(Date),
        });
        await reports.count(1);
        expect(reports.all).toEqual([
          { error: thrown, context: { task: { id, name: 'conformance.fails', attempt: 1 }, args: [] } },
        ]);
      });

      test('a logger is told where there is no onError', async () => {
        const engine = await openEngine();
        const logged = new Seen<{ context: object; message: string }>();
        const logger = {
          error: (context: object, message: string) => {
            logged.add({ context, message });
          },
        };
        const thrown = new Error('no such mailbox');
        const fails = task('conformance.fails', () => {
          throw thrown;
        });
        await engine.work([fails], { logger });
        const { id } = await send(engine, { name: 'conformance.fails', args: [] });
        expect(await logged.next()).toEqual({
          context: { err: thrown, task: { id, name: 'conformance.fails', attempt: 1 } },
          message: 'Background task "conformance.fails" failed',
        });
      });

      test('whatever is thrown makes the task fail, and nothing else', async () => {
        const engine = await openEngine();
        const hostile = new Proxy(
          {},
          {
            get: () => {
              throw new Error('trap');
            },
          },
        );
        const values: unknown[] = [undefined, null, 'text', 7, Symbol('s'), Object.create(null), hostile];
        const { onError, reports } = reporter();
        const throws = task('conformance.throws', (index: number) => {
          throw values[index];
        });
        await engine.work([throws], { onError });
        for (const index of values.keys()) {
          const { id } = await send(engine, { name: 'conformance.throws', args: [index] });
          const failed = await over(engine, id);
          expect(failed).toMatchObject({ state: 'failed', error: { name: 'Error', message: expect.any(String) } });
        }
        await reports.count(values.length);
      });

      if (can('retries')) {
        test('a failed attempt is tried again, and the task succeeds without a report', async () => {
          const engine = await openEngine();
          const attempts: unknown[] = [];
          const { onError, reports } = reporter();
          const flaky = task('conformance.flaky', () => {
            attempts.push(currentTask()?.attempt);
            if (attempts.length < 3) throw new Error('not yet');
            return 'done';
          });
          await engine.work([flaky], { onError });
          const { id } = await send(engine, { name: 'conformance.flaky', args: [], retries: backoff(5) });
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 3, result: 'done' });
          expect(attempts).toEqual([1, 2, 3]);
          expect(await engine.get(id)).not.toHaveProperty('error');
          expect(reports.all).toEqual([]);
        });

        test('after the last retry the task has failed, with the last error, reported once', async () => {
          const engine = await openEngine();
          const { onError, reports } = reporter();
          const fails = task('conformance.fails', () => {
            throw new Error(`attempt ${currentTask()?.attempt}`);
          });
          await engine.work([fails], { onError });
          const { id } = await send(engine, { name: 'conformance.fails', args: [], retries: backoff(2) });
          expect(await over(engine, id)).toMatchObject({
            state: 'failed',
            attempts: 3,
            error: { name: 'Error', message: 'attempt 3' },
          });
          await reports.count(1);
          expect(reports.all).toEqual([
            {
              error: expect.objectContaining({ message: 'attempt 3' }),
              context: { task: { id, name: 'conformance.fails', attempt: 3 }, args: [] },
            },
          ]);
        });

        test('the backoff of the message is waited for', async () => {
          const engine = await openEngine();
          const times = new Seen<number>();
          const fails = task('conformance.fails', () => {
            times.add(Date.now());
            throw new Error('again');
          });
          await engine.work([fails], { onError: () => {} });
          const retries = { limit: 1, minDelay: 1000, maxDelay: 1000, factor: 1, jitter: false };
          await send(engine, { name: 'conformance.fails', args: [], retries });
          const [first = 0, second = 0] = await times.count(2);
          expect(second - first).toBeGreaterThanOrEqual(950); // The store may have a clock of its own.
        });
      }

      if (can('timeout')) {
        test('the timeout of the message aborts the signal and fails the attempt with ERR_TASK_TIMEOUT', async () => {
          const engine = await openEngine();
          const { onError, reports } = reporter();
          let signal: AbortSignal | undefined;
          const hang = task(
            'conformance.hang',
            () => {
              signal = currentTask()?.signal;
              return new Promise(() => {});
            },
            { timeout: 60_000 },
          );
          await engine.work([hang], { onError });
          const { id } = await send(engine, { name: 'conformance.hang', args: [], timeout: 50 });
          const failed = await over(engine, id);
          expect(failed).toMatchObject({ state: 'failed', attempts: 1, error: { name: 'BackgroundTasksError' } });
          expect(failed.error?.message).toContain('50 ms');
          expect(signal?.reason).toMatchObject({ name: 'TimeoutError' });
          await reports.count(1);
          expect(reports.all[0]?.error).toMatchObject({ code: 'ERR_TASK_TIMEOUT' });
        });
      }

      test("the worker's own task gives the timeout of a message that has none", async () => {
        const engine = await openEngine();
        const hang = task('conformance.hang', () => new Promise(() => {}), { timeout: 50 });
        await engine.work([hang], { onError: () => {} });
        const { id } = await send(engine, { name: 'conformance.hang', args: [] });
        expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 1 });
      });

      if (can('timeout')) {
        test("a message that says so has no timeout, whatever the worker's own task has", async () => {
          const engine = await openEngine();
          const slow = task('conformance.slow', () => sleep(200), { timeout: 50 });
          await engine.work([slow], { onError: () => {} });
          const { id } = await send(engine, { name: 'conformance.slow', args: [], timeout: Number.POSITIVE_INFINITY });
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        });
      }

      if (can('timeout') && can('retries')) {
        test('an attempt that ran out of time is tried again', async () => {
          const engine = await openEngine();
          const slowFirst = task('conformance.slow-first', () =>
            currentTask()?.attempt === 1 ? new Promise(() => {}) : 'in time',
          );
          await engine.work([slowFirst]);
          const message = { name: 'conformance.slow-first', args: [], timeout: 100, retries: backoff(1) };
          const { id } = await send(engine, message);
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 'in time' });
        });
      }
    });

    describe('the order', () => {
      test('tasks of the same priority run in the order in which they were enqueued', async () => {
        const engine = await openEngine();
        const seen = new Seen<number>();
        for (let number = 0; number < 10; number++) {
          await send(engine, { name: 'conformance.number', args: [number] });
        }
        await engine.work([task('conformance.number', (number: number) => seen.add(number))], { concurrency: 1 });
        expect(await seen.count(10)).toEqual([0, 1, 2, 3, 4, 5, 6, 7, 8, 9]);
      });

      if (can('priority')) {
        test('a higher priority runs first, and no priority is 0', async () => {
          const engine = await openEngine();
          const seen = new Seen<string>();
          const messages: [string, number?][] = [
            ['low', -5],
            ['none'],
            ['zero', 0],
            ['high', 7],
            ['highest', 1000],
            ['high too', 7],
          ];
          for (const [label, priority] of messages) {
            const message = { name: 'conformance.label', args: [label] };
            await send(engine, priority === undefined ? message : { ...message, priority });
          }
          await engine.work([task('conformance.label', (label: string) => seen.add(label))], { concurrency: 1 });
          expect(await seen.count(6)).toEqual(['highest', 'high', 'high too', 'none', 'zero', 'low']);
        });
      }

      if (can('delay')) {
        test('a delayed task waits its time, queued, and does not hold up others', async () => {
          const engine = await openEngine();
          const seen = await record(engine);
          const start = Date.now();
          const { id } = await send(engine, { name: 'conformance.record', args: ['late'], delay: 1500 });
          await send(engine, { name: 'conformance.record', args: ['at once'] });
          expect(await seen.next()).toEqual(['at once']);
          expect(await engine.get(id)).toMatchObject({ state: 'queued', attempts: 0 });
          expect(await seen.next()).toEqual(['late']);
          expect(Date.now() - start).toBeGreaterThanOrEqual(1450); // The store may have a clock of its own.
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        });
      }
    });

    if (can('key')) {
      describe('a key', () => {
        test('gives the id of the task that is queued already, also where both are enqueued at once', async () => {
          const engine = await openEngine();
          const message = (value: number): Sent => ({ name: 'conformance.record', args: [value], key: 'daily' });
          const [first, second] = await Promise.all([send(engine, message(1)), send(engine, message(2))]);
          const third = await send(await openEngine(), message(3));
          expect([second.id, third.id]).toEqual([first.id, first.id]);
          const other = await send(engine, { ...message(4), key: 'another' });
          expect(other.id).not.toBe(first.id);
          const seen = await record(engine);
          await over(engine, first.id);
          await over(engine, other.id);
          // Of two at once, the store takes whichever comes first.
          expect([
            [1, 4],
            [2, 4],
          ]).toContainEqual(sorted(seen.all.map(([value]) => Number(value))));
        });

        test('is held while the task runs, and free once it is over', async () => {
          const engine = await openEngine();
          const started = new Seen<string>();
          const gate = new Gate();
          const held = task('conformance.held', async (label: string) => {
            started.add(label);
            await gate.opened;
            if (label === 'fails') throw new Error('fails');
          });
          await engine.work([held], { onError: () => {} });
          const message = (label: string): Sent => ({ name: 'conformance.held', args: [label], key: 'k' });
          const first = await send(engine, message('first'));
          await started.count(1);
          expect(await send(engine, message('second'))).toEqual(first);
          gate.open();
          await over(engine, first.id);
          const third = await send(engine, message('fails'));
          expect(third.id).not.toBe(first.id);
          expect(await over(engine, third.id)).toMatchObject({ state: 'failed' });
          const fourth = await send(engine, message('fourth'));
          expect(fourth.id).not.toBe(third.id);
          await over(engine, fourth.id);
          expect(started.all).toEqual(['first', 'fails', 'fourth']);
        });

        if (can('delay')) {
          test('is held by a delayed task', async () => {
            const engine = await openEngine();
            const message = { name: 'a', args: [], key: 'k' };
            const first = await send(engine, { ...message, delay: 3_600_000 });
            expect(await send(engine, message)).toEqual(first);
          });
        }

        if (can('retries')) {
          test('is held by a task that waits for its retry', async () => {
            const engine = await openEngine();
            const failing = task('conformance.fails', () => {
              throw new Error('not yet');
            });
            await engine.work([failing]);
            const message = { name: 'conformance.fails', args: [], key: 'k', retries: backoff(1, 3_600_000) };
            const first = await send(engine, message);
            await reaches(engine, first.id, ({ state, attempts }) => state === 'queued' && attempts === 1);
            expect(await send(engine, message)).toEqual(first);
          });
        }

        test('may be any text', async () => {
          const engine = await openEngine();
          const keys = [
            'a b',
            'a:b',
            'á',
            'á'.normalize('NFD'),
            'a\u0000b',
            'a\u0000c',
            '*',
            "'",
            'x'.repeat(500),
            'X',
          ];
          const ids = new Set<string>();
          for (const key of keys) ids.add((await send(engine, { name: 'a', args: [], key })).id);
          expect(ids.size).toBe(keys.length);
          for (const key of keys) ids.add((await send(engine, { name: 'a', args: [], key })).id);
          expect(ids.size).toBe(keys.length);
        });
      });
    }

    describe('a worker', () => {
      test('refuses what task() did not make, and bad options', async () => {
        const engine = await openEngine();
        const notTasks = [() => {}] as unknown as Parameters<TaskEngine['work']>[0];
        await expect(engine.work(notTasks)).rejects.toMatchObject({ code: 'ERR_INVALID_TASK' });
        await expect(engine.work([], { concurrency: 0 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
        const twice = [task('a', () => {}), task('a', () => {})];
        await expect(engine.work(twice)).rejects.toMatchObject({ code: 'ERR_INVALID_TASK' });
      });

      test('leaves tasks to the other workers of its process, which are not reported as unknown', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const seen = new Seen<string>();
        const [a, b] = ['a', 'b'].map((name) => task(`conformance.${name}`, (label: string) => seen.add(name + label)));
        if (a === undefined || b === undefined) throw new Error('there are two');
        await engine.work([a], { onError });
        await engine.work([b], { onError });
        for (const label of ['1', '2', '3']) {
          await Promise.all([engine.enqueue(a, label), engine.enqueue(b, label)]);
        }
        expect(sorted(await seen.count(6))).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'b3']);
        expect(reports.all).toEqual([]);
      });

      test('runs at most `concurrency` tasks at the same time, and as many', async () => {
        const engine = await openEngine();
        const gates = new Seen<Gate>();
        let running = 0;
        let most = 0;
        const waits = task('conformance.waits', async () => {
          running++;
          most = Math.max(most, running);
          const gate = new Gate();
          gates.add(gate);
          await gate.opened;
          running--;
        });
        for (let count = 0; count < 7; count++) await send(engine, { name: 'conformance.waits', args: [] });
        await engine.work([waits], { concurrency: 3 });
        await gates.count(3);
        for (let count = 0; count < 7; count++) (await gates.next()).open();
        expect(most).toBe(3);
      });

      test('gives the event loop its turn between tasks that hold it', async () => {
        const engine = await openEngine();
        let turns = 0;
        const begun: number[] = [];
        const hold = task('conformance.hold', () => {
          begun.push(turns);
          const end = performance.now() + 4;
          while (performance.now() < end);
        });
        const enqueued = await Promise.all(Array.from({ length: 30 }, () => engine.enqueue(hold)));
        const counting = setInterval(() => turns++, 0);
        await engine.work([hold], { concurrency: 100 });
        for (const { id } of enqueued) expect(await over(engine, id)).toMatchObject({ state: 'succeeded' });
        clearInterval(counting);
        expect((begun.at(-1) ?? 0) - (begun[0] ?? 0)).toBeGreaterThanOrEqual(10);
      });

      test('leaves tasks that it does not know to others, and reports each of them once', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const ignorant = await engine.work([task('conformance.known', () => {})], { onError });
        const unknown = task('conformance.unknown', (number: number) => number);
        const enqueued = await Promise.all(Array.from({ length: 300 }, (_, number) => engine.enqueue(unknown, number)));
        await reports.count(300);
        await sleep(1500); // Several polls.
        expect(sorted(reports.all.map(({ context }) => context.task.id))).toEqual(sorted(enqueued.map(({ id }) => id)));
        expect(reports.all[0]).toMatchObject({
          error: { code: 'ERR_UNKNOWN_TASK', message: expect.stringContaining('conformance.unknown') },
          context: { task: { name: 'conformance.unknown' } },
        });
        expect(await engine.get(enqueued[0]?.id ?? '')).toMatchObject({ state: 'queued' });
        await ignorant.close();
        await engine.work([unknown]);
        for (const { id } of enqueued)
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
      });

      test('reports none that a work() call knows which follows soon, and runs each at its first attempt', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const later = task('conformance.later', () => {});
        const enqueued = await Promise.all(Array.from({ length: 30 }, () => engine.enqueue(later)));
        await engine.work([task('conformance.sooner', () => {})], { onError });
        await sleep(200);
        await engine.work([later], { onError });
        for (const { id } of enqueued)
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        expect(reports.all).toEqual([]);
      });

      test('close() waits for what runs and takes nothing more', async () => {
        const engine = await openEngine();
        const log: string[] = [];
        const started = new Gate();
        const gate = new Gate();
        const waits = task('conformance.waits', async (label: string) => {
          started.open();
          await gate.opened;
          log.push(label);
        });
        const worker = await engine.work([waits], { concurrency: 1 });
        const first = await send(engine, { name: 'conformance.waits', args: ['first'] });
        const second = await send(engine, { name: 'conformance.waits', args: ['second'] });
        await started.opened;
        const closed = worker.close().then(() => log.push('closed'));
        await sleep(100);
        gate.open();
        await closed;
        await worker.close();
        expect(log).toEqual(['first', 'closed']);
        expect(await engine.get(first.id)).toMatchObject({ state: 'succeeded' });
        expect(await engine.get(second.id)).toMatchObject({ state: 'queued', attempts: 0 });
        await send(engine, { name: 'conformance.waits', args: ['third'] });
        expect(log).toEqual(['first', 'closed']);
      });

      test('close({ timeout }) aborts what still runs and gives it back; that is no failure', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const signals = new Seen<AbortSignal>();
        const hangsFirst = task('conformance.hangs-first', () => {
          const context = currentTask();
          if (context?.attempt !== 1) return 'in the end';
          signals.add(context.signal);
          return new Promise((_, reject) => {
            context.signal.addEventListener('abort', () => reject(context.signal.reason));
          });
        });
        const worker = await engine.work([hangsFirst], { onError });
        const { id } = await send(engine, { name: 'conformance.hangs-first', args: [] });
        const signal = await signals.next();
        await worker.close({ timeout: 50 });
        expect(signal.reason).toMatchObject({ code: 'ERR_TASK_ABANDONED' });
        await engine.work([hangsFirst], { onError });
        expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 'in the end' });
        expect(reports.all).toEqual([]);
      });

      test("close() counts by the shortest of several timeouts, also after the engine's close()", async () => {
        const engine = await openEngine();
        const started = new Gate();
        const hangs = task('conformance.hangs-here', () => {
          started.open();
          return new Promise(() => {});
        });
        const worker = await engine.work([hangs]);
        await send(engine, { name: 'conformance.hangs-here', args: [] });
        await started.opened;
        const closed = [engine.close(), worker.close({ timeout: 60_000 })];
        await worker.close({ timeout: 50 });
        await Promise.all(closed);
      });

      test("the engine's close() waits for enqueues under way", async () => {
        const engine = await openEngine();
        const enqueued = Array.from({ length: 20 }, () => send(engine, { name: 'a', args: [] }));
        await engine.close();
        const other = await openEngine();
        for (const { id } of await Promise.all(enqueued)) expect(await other.get(id)).toMatchObject({ id });
      });

      test("the engine's close() waits for running tasks too", async () => {
        const engine = await openEngine();
        const log: string[] = [];
        const started = new Gate();
        const gate = new Gate();
        const waits = task('conformance.waits', async () => {
          started.open();
          await gate.opened;
          log.push('ran');
        });
        await engine.work([waits]);
        const { id } = await send(engine, { name: 'conformance.waits', args: [] });
        await started.opened;
        const closed = engine.close().then(() => log.push('closed'));
        await sleep(100);
        gate.open();
        await closed;
        expect(log).toEqual(['ran', 'closed']);
        expect(await (await openEngine()).get(id)).toMatchObject({ state: 'succeeded' });
      });

      test('work() after close() of the engine rejects with ERR_ENGINE_UNAVAILABLE', async () => {
        const engine = await openEngine();
        await engine.close();
        await expect(engine.work([])).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      });

      if (can('processes')) {
        test('that is killed with -9 while it runs a task: another one runs it', async () => {
          const engine = await openEngine();
          const { child, reports } = await startWorkerProcess();
          const { id } = await send(engine, { name: 'conformance.hang', args: ['to be killed'] });
          await reports.first((report) => report.event === 'hangs');
          await kill(child);
          const seen = await record(engine, 'conformance.hang');
          expect(await seen.next()).toEqual(['to be killed']);
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 2 });
        });
      }

      test('shares the work with another one of its process: every task runs once', async () => {
        const engine = await openEngine();
        const runs = [await record(engine), await record(engine), await record(await openEngine())];
        const ids = await enqueueMany(engine, 100);
        for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        expect(runs.flatMap(({ all }) => all)).toHaveLength(100);
      });

      if (can('processes')) {
        test('shares the work with those of other processes: every task runs once', async () => {
          const engine = await openEngine();
          const processes = await Promise.all([startWorkerProcess(), startWorkerProcess()]);
          const ids = await enqueueMany(engine, 200);
          for (const id of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
          for (const { child } of processes) child.send('close');
          await Promise.all(processes.map(({ child }) => exited(child)));
          const runs = processes.flatMap(({ reports }) => reports.all.filter(({ event }) => event === 'ran'));
          expect(sorted(runs.map((report) => (report.event === 'ran' ? report.id : '')))).toEqual(sorted(ids));
        });
      }

      if (can('processes')) {
        test('leaves nothing behind that keeps a process up', async () => {
          const { child, reports } = startProcess('once');
          expect(await exited(child)).toEqual({ code: 0, signal: null });
          expect(reports.all).toMatchObject([{ event: 'ran' }]);
        });
      }
    });

    async function enqueueMany(engine: TaskEngine, count: number): Promise<string[]> {
      const messages = Array.from({ length: count }, (_, number) => ({ name: 'conformance.record', args: [number] }));
      const enqueued = await Promise.all(messages.map((message) => send(engine, message)));
      return enqueued.map(({ id }) => id);
    }
  });
}
