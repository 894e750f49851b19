// task(): a function with a name and options of its own, and the handle that add() returns.

import { tracingChannel } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import { inspect } from 'node:util';
import type { Request, Response } from 'express';
import { BackgroundTasksError, currentTask, type RetryOptions, type TaskHandle, task } from '../../lib/index';
import { AddedTask } from '../../lib/response/added-task';
import { deferred } from '../fixtures/deferred';
import { collectGarbage } from '../fixtures/garbage';
import { serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');

let stopTracing = (): void => {};
afterEach(() => {
  stopTracing();
});

function traceAll(): () => void {
  const channel = tracingChannel('express-background-tasks:task');
  const subscriber = { start() {}, end() {}, asyncStart() {}, asyncEnd() {}, error() {} };
  channel.subscribe(subscriber);
  return () => channel.unsubscribe(subscriber);
}

describe('task()', () => {
  it('is callable like its handler', async () => {
    const add = task('add', (a: number, b: number) => a + b);
    const sum: number = add(1, 2);
    expect(sum).toBe(3);
    const later = task('later', async (text: string) => text.length);
    const length: Promise<number> = later('four');
    await expect(length).resolves.toBe(4);
    const throwing = task('throwing', () => {
      throw error;
    });
    expect(throwing).toThrow(error);
  });

  it('runs nothing but the handler when it is called: no retry, no time limit, no current task', async () => {
    const handler = jest.fn(async () => {
      await sleep(5);
      expect(currentTask()).toBeUndefined();
      throw error;
    });
    await expect(task('called', handler, { timeout: 1, retries: 3 })()).rejects.toBe(error);
    expect(handler).toHaveBeenCalledTimes(1);
  });

  it('has the name that it was given, and so has the handle', async () => {
    const named = task('send mail', function original() {});
    expect(named.name).toBe('send mail');
    const { middleware, respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(named));
    expect(handle.name).toBe('send mail');
    await middleware.idle();
    expect(handle.name).toBe('send mail');
  });

  it('passes arguments by reference', async () => {
    const arg = { a: 1 };
    const handler = jest.fn();
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => tasks.add(task('by reference', handler), arg, undefined));
    await middleware.idle();
    expect(handler.mock.calls).toEqual([[arg, undefined]]);
    expect(handler.mock.calls[0]?.[0]).toBe(arg);
  });

  describe('checks when the task is defined', () => {
    const handler = (): void => {};
    const define = task as (...args: unknown[]) => unknown;

    it.each([[''], [undefined], [null], [1], [Symbol('name')], [{}], [handler]])('the name: not %p', (name) => {
      expect(() => define(name, handler)).toThrow(BackgroundTasksError);
      expect(() => define(name, handler)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_TASK',
          message: expect.stringContaining('the name must be a string that is not empty'),
        }),
      );
    });

    it.each([[undefined], [null], ['handler'], [Promise.resolve()]])('the handler: not %p', (bad) => {
      expect(() => define('bad handler', bad)).toThrow(
        expect.objectContaining({
          code: 'ERR_INVALID_TASK',
          message: expect.stringMatching(/^task\("bad handler"\): the handler must be a function, not /),
        }),
      );
    });

    it('the handler: not undefined, which is usually a misspelling, beside options', () => {
      expect(() => define('bad handler', undefined, { timeout: 1 })).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_TASK', message: expect.stringContaining('not undefined') }),
      );
    });

    const options: [options: unknown, message: RegExp][] = [
      [null, /must be an object, not null/],
      [1, /must be an object, not 1/],
      [[], /must be an object, not \[\]/],
      [handler, /must be an object, not \[Function/],
      [{ timeout: 0 }, /"timeout" must be/],
      [{ timeout: -1 }, /"timeout" must be/],
      [{ timeout: Number.NaN }, /"timeout" must be/],
      [{ timeout: '1000' }, /"timeout" must be .*, not '1000'/],
      [{ timeout: 2 ** 31 }, /"timeout" must be/],
      [{ retries: -1 }, /"retries" must be/],
      [{ retries: 1.5 }, /"retries" must be/],
      [{ retries: Number.POSITIVE_INFINITY }, /"retries" must be/],
      [{ retries: null }, /"retries" must be/],
      [{ retries: {} }, /"retries" must be/],
      [{ retries: { limit: '1' } }, /"limit" must be/],
      [{ retries: { limit: 1, minDelay: -1 } }, /"minDelay" must be/],
      [{ retries: { limit: 1, maxDelay: Number.POSITIVE_INFINITY } }, /"maxDelay" must be/],
      [{ retries: { limit: 1, minDelay: 10, maxDelay: 9 } }, /minDelay that is not over maxDelay/],
      [{ retries: { limit: 1, factor: 0.5 } }, /"factor" must be/],
      [{ retries: { limit: 1, factor: Number.NaN } }, /"factor" must be/],
      [{ retries: { limit: 1, jitter: 1 } }, /"jitter" must be/],
      [{ retries: { limit: 1, delay: 1 } }, /unknown option "delay"/],
      [{ when: 'sometimes' }, /"when" must be/],
      [{ when: true }, /"when" must be/],
      [
        { retry: 1 },
        /task\(\): unknown option "retry"; there are delay, key, priority, retries, timeout, when, whileRunning/,
      ],
      [{ whileRunning: 'twice' }, /task\(\): "whileRunning" must be 'keep' or 'again', not 'twice'/],
      [{ stopOnError: true }, /unknown option "stopOnError"/],
      [{ toString: () => '' }, /unknown option "toString"/],
    ];
    it.each(options)('the options: not %j', (bad, message) => {
      const expected = expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(message),
      });
      expect(() => define('bad options', handler, bad)).toThrow(expected);
      expect(() => task('fine', handler).with(bad as object)).toThrow(expected);
    });

    it.each([
      [{}],
      [{ timeout: 1, retries: 0, when: 'always' }],
      [{ timeout: Number.POSITIVE_INFINITY, retries: 1, when: 'success' }],
      [{ timeout: 0.5, retries: { limit: 1 }, when: () => true }],
      [{ retries: { limit: 0, minDelay: 0, maxDelay: 0, factor: 1, jitter: false } }],
      [{ timeout: undefined, retries: undefined, when: undefined }],
      [{ retries: { limit: 1, minDelay: undefined, maxDelay: undefined, factor: undefined, jitter: undefined } }],
    ])('and takes the options %j', (options) => {
      expect(() => define('good options', handler, options)).not.toThrow();
      expect(() => task('fine', handler).with(options as object)).not.toThrow();
    });
  });

  it('keeps the options as they were when it was defined', async () => {
    const options: { timeout?: number; retries: { limit: number; minDelay: number } } = {
      retries: { limit: 1, minDelay: 1 },
    };
    const handler = jest.fn(() => Promise.reject(error));
    const defined = task('defined', handler, options);
    options.timeout = -1;
    options.retries.limit = 5;
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => tasks.add(defined));
    await middleware.idle();
    expect(handler).toHaveBeenCalledTimes(2);
  });

  describe('inherited options', () => {
    class Options {
      get retries(): RetryOptions {
        return new Retries();
      }
    }
    class Retries implements RetryOptions {
      get limit(): number {
        return 2;
      }
      get minDelay(): number {
        return 1;
      }
    }

    it('hold as own ones do, also in with()', async () => {
      const handler = jest.fn(() => Promise.reject(error));
      const { middleware, respond } = await serveTasks();
      await respond((tasks) => {
        tasks.add(task('inherits', handler, new Options()));
        tasks.add(task('changed', handler).with(new Options()));
      });
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(6);
    });
  });

  describe('with()', () => {
    it('returns a copy, and leaves the original as it is', async () => {
      const handler = jest.fn(() => Promise.reject(error));
      const original = task('original', handler, { retries: { limit: 2, minDelay: 1 } });
      const copy = original.with({ retries: 0 });
      expect(copy).not.toBe(original);
      expect(copy.name).toBe('original');
      const { middleware, respond } = await serveTasks();
      await respond((tasks) => tasks.add(copy));
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(1);
      await respond((tasks) => tasks.add(original));
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(4);
    });

    it('applies its options over the old ones and keeps the others, copy after copy', async () => {
      const handler = jest.fn(() => Promise.reject(error));
      const original = task('original', handler, { retries: { limit: 2, minDelay: 1 }, when: 'success' });
      const always = original.with({ when: 'always' });
      const once = always.with({ retries: { limit: 1, minDelay: 1 } });
      const { middleware, respond } = await serveTasks();
      await respond((tasks, res) => {
        res.status(500);
        tasks.add(original);
      });
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(0);
      await respond((tasks, res) => {
        res.status(500);
        tasks.add(always);
      });
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(3);
      await respond((tasks, res) => {
        res.status(500);
        tasks.add(once);
      });
      await middleware.idle();
      expect(handler).toHaveBeenCalledTimes(5);
      expect(middleware.stats).toMatchObject({ skipped: 1, failed: 2 });
    });

    it('returns a task that is callable like the handler', () => {
      const add = task('add', (a: number, b: number) => a + b).with({ timeout: 10 });
      const sum: number = add(1, 2);
      expect(sum).toBe(3);
    });
  });

  describe('"when" of a task', () => {
    it('stands over the one of the middleware, which it may widen', async () => {
      const { middleware, respond } = await serveTasks({ when: 'success' });
      const [plain, always, never] = await respond((tasks, res) => {
        res.status(404);
        return [
          tasks.add(() => {}),
          tasks.add(task('always', () => {}, { when: 'always' })),
          tasks.add(task('never', () => {}, { when: () => false })),
        ];
      });
      await middleware.idle();
      expect([plain?.status, always?.status, never?.status]).toEqual(['skipped', 'succeeded', 'skipped']);
    });

    it('is asked once per task, also when it is retried, with the outcome of the response', async () => {
      const when = jest.fn(() => true);
      const asked = task('asked', () => Promise.reject(error), { when, retries: { limit: 2, minDelay: 1 } });
      const { middleware, respond } = await serveTasks();
      await respond((tasks, res) => {
        res.status(418);
        tasks.add(asked);
        tasks.add(asked);
      });
      await middleware.idle();
      expect(when.mock.calls).toEqual([[{ statusCode: 418, completed: true }], [{ statusCode: 418, completed: true }]]);
    });
  });
});

describe('the handle of a task', () => {
  it('follows the task from pending to its end', async () => {
    const { middleware, open } = await serveTasks();
    const inside: unknown[] = [];
    const { added: handle, end } = await open((tasks) => {
      const added = tasks.add(async () => {
        inside.push(added.status);
        await sleep(1);
        inside.push(added.status);
        return 'value';
      });
      return added;
    });
    expect(handle.status).toBe('pending');
    const { finished } = handle;
    expect(handle.finished).toBe(finished);
    await end();
    expect(await finished).toEqual({ status: 'succeeded', value: 'value' });
    expect(inside).toEqual(['running', 'running']);
    expect(handle.status).toBe('succeeded');
    expect(handle.finished).toBe(finished);
    await middleware.idle();
  });

  it('has an id of its own, the same for each reader', async () => {
    const { middleware, respond } = await serveTasks();
    const ids: unknown[] = [];
    const handles = await respond((tasks) => [
      tasks.add(() => ids.push(currentTask()?.id)),
      tasks.add(() => ids.push(currentTask()?.id)),
    ]);
    await middleware.idle();
    expect(handles.map(({ id }) => id)).toEqual(ids);
    expect(new Set(ids).size).toBe(2);
    for (const id of ids) expect(id).toMatch(/^[0-9a-f-]{36}$/);
  });

  it('never rejects, and nothing is unhandled when nobody reads it', async () => {
    const { middleware, respond } = await serveTasks();
    const [read] = await respond((tasks) => [
      tasks.add(() => Promise.reject(error)),
      tasks.add(() => Promise.reject()),
    ]);
    expect(await read?.finished).toEqual({ status: 'failed', error });
    await middleware.idle();
    await sleep(1);
    expect(middleware.stats.failed).toBe(2);
  });

  it('lets go of the function and of its arguments once the task is over', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 60_000 });
    stopTracing = traceAll();
    const [handle, refs] = await respond((tasks) => {
      const held = { large: 'x'.repeat(1000) };
      const arg = {};
      const fn = async (_arg: object): Promise<void> => {
        if (held.large === '') throw error;
      };
      return [tasks.add(task('collected', fn), arg), [held, arg, fn].map((value) => new WeakRef(value))] as const;
    });
    await middleware.idle();
    await collectGarbage(() => refs.every((ref) => ref.deref() === undefined));
    expect(refs.map((ref) => ref.deref())).toEqual([undefined, undefined, undefined]);
    expect(handle.name).toBe('collected');
    expect(handle.status).toBe('succeeded');
  });

  it('keeps no response, nor what its request holds, once the task is over', async () => {
    const { middleware, respond, closeConnections } = await serveTasks({ onError: () => {} });
    const refs: WeakRef<object>[] = [];
    const handles: TaskHandle[] = [];
    for (const fn of [() => {}, () => Promise.reject(error), () => sleep(1), () => {}]) {
      await respond((tasks, res) => {
        refs.push(new WeakRef(res));
        handles.push(tasks.add(fn));
        if (handles.length === 4) handles[3]?.cancel();
      });
    }
    await middleware.idle();
    closeConnections();
    await collectGarbage(() => refs.every((ref) => ref.deref() === undefined));
    expect(refs.map((ref) => ref.deref()?.constructor.name)).toEqual([undefined, undefined, undefined, undefined]);
    expect(handles.map(({ status }) => status)).toEqual(['succeeded', 'failed', 'succeeded', 'cancelled']);
  });

  it('of a task that is over has nothing left to call', () => {
    const owner = { req: {} as Request, res: {} as Response, cancel() {} };
    const handle = new AddedTask(function done() {}, [1], owner);
    const scope = { task: undefined, response: undefined, enqueuer: undefined };
    expect(handle.call.outside(scope, () => 'called')).toBe('called');
    handle.settle('succeeded');
    expect(() => handle.call).toThrow('task "done" is over');
    expect([handle.name, handle.status, handle.definition]).toEqual(['done', 'succeeded', undefined]);
  });

  it('is written as JSON with what it is about, and the task that runs is shown so', async () => {
    const { middleware, respond } = await serveTasks();
    const inTask: string[] = [];
    let shown = '';
    const [handle, before] = await respond((tasks) => {
      const first = tasks.add(function first() {
        inTask.push(JSON.stringify(currentTask()));
        shown = inspect(currentTask());
      });
      tasks.add(function second() {});
      return [first, JSON.stringify(first)];
    });
    await middleware.idle();
    const { id } = handle;
    expect(JSON.parse(before)).toEqual({ id, name: 'first', status: 'pending' });
    expect(JSON.parse(JSON.stringify(handle))).toEqual({ id, name: 'first', status: 'succeeded' });
    expect(inTask.map((text) => JSON.parse(text))).toEqual([{ id, name: 'first', attempt: 1 }]);
    expect(shown).toBe(inspect({ id, name: 'first', attempt: 1 }));
  });

  it('of a task that another one added keeps nothing of those before that one', async () => {
    const { middleware, respond } = await serveTasks();
    const refs: WeakRef<object>[] = [];
    const reached = deferred();
    const goOn = deferred();
    await respond((tasks) => {
      const addNext = async (): Promise<object> => {
        expect(currentTask()?.signal.aborted).toBe(false);
        const result = {};
        refs.push(new WeakRef(result));
        if (refs.length < 5) tasks.add(addNext);
        else {
          reached.resolve();
          await goOn.promise;
        }
        return result;
      };
      tasks.add(addNext);
    });
    await reached.promise;
    const first = refs.slice(0, 3);
    await collectGarbage(() => first.every((ref) => ref.deref() === undefined));
    expect(first.map((ref) => ref.deref())).toEqual([undefined, undefined, undefined]);
    goOn.resolve();
    await middleware.idle();
  });

  it('is all that is left of it: nothing keeps the response', async () => {
    const { middleware, respond, closeConnections } = await serveTasks({ onError: () => {} });
    const ends = [() => {}, () => Promise.reject(error), () => sleep(1)];
    const refs: WeakRef<object>[] = [];
    for (const fn of ends) {
      await respond((tasks, res) => {
        refs.push(new WeakRef(res));
        tasks.add(fn);
      });
    }
    await middleware.idle();
    closeConnections();
    await collectGarbage(() => refs.every((ref) => ref.deref() === undefined));
    expect(refs.map((ref) => ref.deref()?.constructor.name)).toEqual([undefined, undefined, undefined]);
  });

  const names: [title: string, fn: () => void, name: string][] = [
    ['the name of the function', function named() {}, 'named'],
    ['"anonymous" without one', (() => () => {})(), 'anonymous'],
    ['"anonymous" when the name is no string', Object.defineProperty(() => {}, 'name', { value: 7 }), 'anonymous'],
    [
      '"anonymous" when the name throws',
      new Proxy(() => {}, {
        get() {
          throw error;
        },
      }),
      'anonymous',
    ],
  ];
  it.each(names)('is named by %s', async (_title, fn, name) => {
    const { middleware, respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(fn));
    expect(handle.name).toBe(name);
    await middleware.idle();
    expect(handle.name).toBe(name);
    expect(handle.status).toBe('succeeded');
  });
});
