// What an engine does for each driver: it checks, serializes, sets deadlines, wakes workers, closes.

import { AsyncLocalStorage } from 'node:async_hooks';
import {
  createEngine,
  type DriverWorker,
  type EngineDriver,
  type MessageRunner,
  type TaskMessage,
  unsupported,
} from '../../lib/engine/index.js';
import {
  BackgroundTasksError,
  currentTask,
  enqueue,
  type Task,
  type TaskEngine,
  type TaskRecord,
  task,
} from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { countKept } from '../fixtures/garbage.js';
import { hostileErrors } from '../fixtures/hostile.js';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const record: TaskRecord = { id: 'x', name: 'a', state: 'queued', attempts: 0, enqueuedAt: new Date(0) };
const id = '0f8fad5b-d9cb-469f-a165-70867728950e';

function driverWith(more: Partial<EngineDriver> = {}): EngineDriver & { messages: TaskMessage[] } {
  const messages: TaskMessage[] = [];
  return {
    name: 'mine',
    messages,
    insert: async (message) => {
      messages.push(message);
      return message.id;
    },
    find: async () => [record],
    close: () => {},
    ...more,
  };
}

const never = (): Promise<never> => new Promise(() => {});

describe('enqueue', () => {
  it('hands over a message: an id, the name, the arguments as they are and as JSON, the options', async () => {
    const driver = driverWith();
    const args = [{ a: 1 }, 'x'] as const;
    const given = task('t', (_a: { readonly a: number }, _b: string) => {}, {
      timeout: 5,
      retries: 1,
      delay: 2,
      priority: 3,
      key: 'k',
    });
    const { id: stored } = await createEngine(driver).enqueue(given, ...args);
    expect(driver.messages).toEqual([
      {
        id: stored,
        name: 't',
        args,
        json: '[{"a":1},"x"]',
        timeout: 5,
        retries: { limit: 1, minDelay: 1000, maxDelay: 30_000, factor: 2, jitter: true },
        delay: 2,
        priority: 3,
        key: 'k',
      },
    ]);
  });

  it('resolves with the id that the driver tells, that of a live task with the same key', async () => {
    const engine = createEngine(driverWith({ insert: async () => id }));
    expect(await engine.enqueue(task('t', () => {}))).toEqual({ id });
  });

  it.each([
    ['ERR_INVALID_TASK', () => {}, []],
    ['ERR_INVALID_OPTION', task('t', () => {}, { when: 'success' }), []],
    ['ERR_TASK_NOT_SERIALIZABLE', task('t', () => {}), [1n]],
  ])('rejects with %s before the driver is asked', async (code, given, args) => {
    const driver = driverWith();
    await expect(createEngine(driver).enqueue(given as Task<unknown[]>, ...(args as never[]))).rejects.toMatchObject({
      code,
    });
    expect(driver.messages).toEqual([]);
  });
});

describe('enqueueMany', () => {
  const keyed = task('t', (_value: number) => {}, { key: 'k' });

  it('hands over one task for each list of arguments', async () => {
    const insertMany = jest.fn(async (messages: readonly TaskMessage[]) => messages.map((message) => message.id));
    const driver = driverWith({ insertMany });
    const stored = await createEngine(driver).enqueueMany(
      task('t', (_value: number) => {}),
      [[1], [2]],
    );
    const [[messages = []] = []] = insertMany.mock.calls;
    expect(messages).toMatchObject([
      { name: 't', json: '[1]' },
      { name: 't', json: '[2]' },
    ]);
    expect(stored).toEqual(messages.map((message) => ({ id: message.id })));
    expect(driver.messages).toEqual([]);
  });

  it.each([
    ['keep', '[1]'],
    ['again', '[3]'],
  ] as const)('makes one task of those with one key, whileRunning: %s', async (whileRunning, json) => {
    const insert = jest.fn(async (_message: TaskMessage) => id);
    const engine = createEngine(driverWith({ insert, insertMany: never }));
    const stored = await engine.enqueueMany(keyed.with({ whileRunning }), [[1], [2], [3]]);
    expect(insert.mock.calls.map(([message]) => message)).toMatchObject([{ json, key: 'k' }]);
    expect(stored).toStrictEqual([{ id }, { id }, { id }]);
  });

  it('says what could not be done where the store does not take them', async () => {
    const engine = createEngine(driverWith({ insertMany: () => Promise.reject(new Error('gone')) }));
    await expect(engine.enqueueMany(keyed.with({ key: undefined }), [[1]])).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: 'mine: the task could not be stored: gone',
    });
  });

  it('names itself where it refuses', async () => {
    const engine = createEngine(driverWith({ insertMany: never }));
    await expect(engine.enqueueMany(keyed, 'x' as never)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: "enqueueMany(): the second argument must be an array of lists of arguments, not 'x'",
    });
    await expect(engine.enqueueMany((() => {}) as never, [[]])).rejects.toMatchObject({
      code: 'ERR_INVALID_TASK',
      message: expect.stringMatching(/^enqueueMany\(\): a task must be made by task\(\)/),
    });
  });

  it.each([
    ['this engine stores one task at a time: call enqueue()', {}],
    ['one by one', { instead: { insertMany: 'one by one' } }],
  ])('is refused where the driver has no way to: %s', async (reason, more) => {
    await expect(createEngine(driverWith(more)).enqueueMany(keyed, [[1]])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: `mine: "enqueueMany()" is not possible: ${reason}`,
    });
  });
});

it('enqueue refuses what is no task, and "whileRunning" without a key, by its name', async () => {
  const engine = createEngine(driverWith());
  await expect(engine.enqueue((() => {}) as never)).rejects.toMatchObject({
    code: 'ERR_INVALID_TASK',
    message: expect.stringMatching(/^enqueue\(\): a task must be made by task\(\)/),
  });
  await expect(engine.enqueue(task('t', () => {}, { whileRunning: 'again' }))).rejects.toMatchObject({
    code: 'ERR_INVALID_OPTION',
    message: 'enqueue(): task "t" has "whileRunning" and no "key"',
  });
});

describe.each([
  ['enqueue', 'insert', 'the task could not be stored'],
  ['get', 'find', 'the task could not be read'],
  ['work', 'work', 'the worker could not be started'],
] as const)('%s, where the store', (call, method, failure) => {
  function ask(ofDriver: () => Promise<never>, more: Partial<EngineDriver> = {}): Promise<unknown> {
    const engine = createEngine(driverWith({ [method]: ofDriver, ...more }));
    switch (call) {
      case 'enqueue':
        return engine.enqueue(task('t', () => {}));
      case 'get':
        return engine.get(id);
      case 'work':
        return engine.work([]);
    }
  }

  const unavailable = (cause: unknown, reason: string) => ({
    name: 'BackgroundTasksError',
    code: 'ERR_ENGINE_UNAVAILABLE',
    message: `mine: ${failure}: ${reason}`,
    cause,
  });

  it.each([
    ['rejects', () => Promise.reject(new Error('gone'))],
    [
      'throws',
      () => {
        throw new Error('gone');
      },
    ],
  ])('%s: ERR_ENGINE_UNAVAILABLE', async (_title, fails) => {
    await expect(ask(fails)).rejects.toMatchObject(unavailable(new Error('gone'), 'gone'));
  });

  it('rejects with no Error, says so too', async () => {
    await expect(ask(() => Promise.reject('gone'))).rejects.toMatchObject(unavailable('gone', 'gone'));
  });

  it.each(Object.entries(hostileErrors))('rejects with %s: an Error all the same', async (_title, make) => {
    const error = await ask(() => Promise.reject(make())).catch((caught: unknown) => caught);
    expect(error).toBeInstanceOf(Error);
  });

  it('is in trouble: that is named, and not what it led to', async () => {
    const trouble = new Error('connect ECONNREFUSED');
    const fails = (): Promise<never> => Promise.reject(new Error('Connection is closed.'));
    await expect(ask(fails, { trouble: () => trouble })).rejects.toMatchObject(unavailable(trouble, trouble.message));
    await expect(ask(fails, { trouble: () => undefined })).rejects.toMatchObject({
      cause: { message: 'Connection is closed.' },
    });
  });

  it("rejects with one of the library's own errors: it is passed on as it is", async () => {
    const error = new BackgroundTasksError('ERR_INVALID_OPTION', 'mine');
    await expect(ask(() => Promise.reject(error), { trouble: () => new Error('trouble') })).rejects.toBe(error);
  });

  it('does not answer within 4500 ms: it rejects', async () => {
    fakeTimeouts();
    const rejected = expect(ask(never)).rejects.toMatchObject(
      unavailable(expect.any(Error), 'no answer within 4500 ms'),
    );
    await jest.advanceTimersByTimeAsync(4499);
    expect(jest.getTimerCount()).toBe(1);
    await jest.advanceTimersByTimeAsync(1);
    await rejected;
    expect(jest.getTimerCount()).toBe(0);
  });
});

describe('the signal of a call', () => {
  it('is aborted once enqueue has rejected', async () => {
    fakeTimeouts();
    let expired: AbortSignal | undefined;
    const engine = createEngine(
      driverWith({
        insert: (_message, signal) => {
          expired = signal;
          return never();
        },
      }),
    );
    const rejected = expect(engine.enqueue(task('t', () => {}))).rejects.toThrow();
    await jest.advanceTimersByTimeAsync(4499);
    expect(expired?.aborted).toBe(false);
    await jest.advanceTimersByTimeAsync(1);
    expect(expired?.aborted).toBe(true);
    await rejected;
  });

  it('is not aborted where there was an answer', async () => {
    fakeTimeouts();
    let expired: AbortSignal | undefined;
    const engine = createEngine(
      driverWith({
        insert: async (_message, signal) => {
          expired = signal;
          return id;
        },
      }),
    );
    await engine.enqueue(task('t', () => {}));
    await jest.advanceTimersByTimeAsync(10_000);
    expect(expired?.aborted).toBe(false);
  });
});

describe('get', () => {
  it('asks for a UUID in lower case, and says whether the result is wanted', async () => {
    const find = jest.fn(async () => [record]);
    const engine = createEngine(driverWith({ find }));
    expect(await engine.get(id.toUpperCase())).toBe(record);
    await engine.get(id, { result: false });
    expect(find.mock.calls).toEqual([
      [[id], { result: true }, expect.any(AbortSignal)],
      [[id], { result: false }, expect.any(AbortSignal)],
    ]);
  });

  it('knows nothing of what cannot be an id, without asking', async () => {
    const find = jest.fn(async () => [record]);
    const engine = createEngine(driverWith({ find }));
    for (const odd of ['', 'x', "'; DROP TABLE", `${id}0`, undefined, {}]) {
      expect(await engine.get(odd as string)).toBeUndefined();
    }
    expect(find).not.toHaveBeenCalled();
  });

  it.each([{ result: 'yes' }, { results: true }, null])('refuses the options %p', async (options) => {
    await expect(createEngine(driverWith()).get(id, options as object)).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
    });
  });
});

it('promote() knows nothing of what cannot be an id, without asking', async () => {
  const promote = jest.fn(async () => true);
  const engine = createEngine(driverWith({ promote }));
  expect(await engine.promote('x')).toBe(false);
  expect(promote).not.toHaveBeenCalled();
  expect(await engine.promote(id.toUpperCase())).toBe(true);
  expect(promote.mock.calls).toEqual([[id, expect.any(AbortSignal)]]);
});

describe.each<[string, Partial<EngineDriver>, string, (engine: TaskEngine) => Promise<unknown>]>([
  ['list', { list: gone }, 'the tasks could not be read', (engine) => engine.list()],
  ['stats', { stats: gone }, 'the tasks could not be counted', (engine) => engine.stats()],
  ['cancel', { cancel: gone }, 'the task could not be changed', (engine) => engine.cancel(id)],
  ['promote', { promote: gone }, 'the task could not be changed', (engine) => engine.promote(id)],
])('%s', (_name, driver, what, call) => {
  it('says what could not be done where the store does not answer', async () => {
    await expect(call(createEngine(driverWith(driver)))).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: `mine: ${what}: gone`,
    });
  });
});

function gone(): Promise<never> {
  return Promise.reject(new Error('gone'));
}

it('retry(), remove() and list() know nothing of what cannot be an id, without asking', async () => {
  const ask = jest.fn();
  const engine = createEngine(driverWith({ retry: ask, remove: ask, list: ask }));
  expect(await engine.retry('x')).toBe(0);
  expect(await engine.remove('x')).toBe(0);
  expect(await engine.list({ after: 'x' })).toEqual([]);
  expect(ask).not.toHaveBeenCalled();
});

it('bad options are refused in the name of the call', async () => {
  const ask = jest.fn();
  const engine = createEngine(driverWith({ retry: ask, remove: ask, cancel: ask }));
  const bad = { results: true } as object;
  await expect(engine.get(id, bad)).rejects.toThrow('get(): unknown option "results"');
  await expect(engine.retry({})).rejects.toThrow('retry(): give it an id, or a filter with "state" or "name"');
  await expect(engine.remove({})).rejects.toThrow('remove(): give it an id, or a filter with "state" or "name"');
  expect(() => engine.watch(id, { signal: 'now' as never })).toThrow('watch(): "signal" must be an AbortSignal, not');
  expect(() => createEngine(driverWith({ find: undefined })).watch(id)).toThrow('mine: "watch()" is not possible');
  await expect(engine.schedule('s', { cron: '@daily' }, (() => {}) as never)).rejects.toThrow(
    'schedule(): a task must be made by task()',
  );
});

describe('a call of many steps', () => {
  it('resolves with the sum of them', async () => {
    const retry = async function* (): AsyncGenerator<number> {
      yield* [100, 100, 7];
    };
    expect(await createEngine(driverWith({ retry })).retry({ state: 'failed' })).toBe(207);
  });

  it('goes no further where one step fails', async () => {
    let expired: AbortSignal | undefined;
    const remove = async function* (_selection: unknown, signal: AbortSignal): AsyncGenerator<number> {
      expired = signal;
      yield 100;
      throw new Error('gone');
    };
    await expect(createEngine(driverWith({ remove })).remove({ state: 'failed' })).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: 'mine: the task could not be changed: gone',
    });
    expect(expired?.aborted).toBe(true);
  });
});

describe('within', () => {
  const transaction = {};
  const gone = new Error('the transaction was rolled back');

  function inTransaction(): { engine: TaskEngine; stored: unknown[]; begun: unknown[] } {
    const stored: unknown[] = [];
    const begun: unknown[] = [];
    const insert = async ({ id, name, args }: TaskMessage): Promise<string> => {
      if (name === 'fails') throw gone;
      stored.push(args);
      return id;
    };
    const within = (given: object) => {
      begun.push(given);
      return { insert, insertMany: (messages: readonly TaskMessage[]) => Promise.all(messages.map(insert)) };
    };
    return { engine: createEngine(driverWith({ within })), stored, begun };
  }

  it('hands the transaction over, and stores by what the driver makes of it', async () => {
    const { engine, stored, begun } = inTransaction();
    const { enqueue: enqueueWithin, enqueueMany } = engine.within(transaction);
    const given = task('t', (_n: number) => {});
    const ids = [await enqueueWithin(given, 1), ...(await enqueueMany(given, [[2], [3]]))].map((made) => made.id);
    expect(new Set(ids).size).toBe(3);
    expect(ids).toEqual(ids.map(() => expect.stringMatching(/^[\da-f-]{36}$/)));
    expect(stored).toEqual([[1], [2], [3]]);
    expect(begun).toEqual([transaction]);
    expect(begun[0]).toBe(transaction);
  });

  it('rejects with what the transaction fails with, as it is', async () => {
    const { engine } = inTransaction();
    await expect(engine.within(transaction).enqueue(task('fails', () => {}))).rejects.toBe(gone);
  });

  it.each([undefined, null, 1, 'client'])('refuses %p', (value) => {
    const { engine } = inTransaction();
    expect(() => engine.within(value as unknown as object)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('within(): the argument must be a transaction, not '),
      }),
    );
  });

  it('is refused where the driver does not have it', () => {
    expect(() => createEngine(driverWith()).within(transaction)).toThrow(
      expect.objectContaining({ message: 'mine: "within()" is not possible: this engine does not have it' }),
    );
  });
});

describe('what a driver does not have', () => {
  it('is refused with what to use instead', async () => {
    const engine = createEngine(
      driverWith({ find: undefined, instead: { work: 'start them by hand', find: 'look it up' } }),
    );
    await expect(engine.work([])).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: 'mine: "work()" is not possible: start them by hand',
    });
    await expect(engine.get(id)).rejects.toMatchObject({ message: 'mine: "get()" is not possible: look it up' });
  });

  it.each<[string, (engine: TaskEngine) => Promise<unknown>]>([
    ['work()', (engine) => engine.work([])],
    ['list()', (engine) => engine.list()],
    ['stats()', (engine) => engine.stats()],
    ['cancel()', (engine) => engine.cancel(id)],
    ['retry()', (engine) => engine.retry(id)],
    ['promote()', (engine) => engine.promote(id)],
    ['remove()', (engine) => engine.remove(id)],
  ])('is refused also where it says nothing about that: %s', async (what, call) => {
    await expect(call(createEngine(driverWith()))).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: `mine: "${what}" is not possible: this engine does not have it`,
    });
  });

  test('unsupported() names the option', () => {
    expect(unsupported('mine', 'delay', 'there is no clock')).toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: 'mine: "delay" is not possible: there is no clock',
    });
  });
});

describe('a worker', () => {
  function working(): { driver: EngineDriver; runners: MessageRunner[]; events: string[] } {
    const runners: MessageRunner[] = [];
    const events: string[] = [];
    const driver = driverWith({
      work: (runner) => {
        runners.push(runner);
        return {
          wake: () => void events.push('wake'),
          stop: () => void events.push('stop'),
          close: async () => void events.push('close'),
        };
      },
      close: () => void events.push('driver closed'),
    });
    return { driver, runners, events };
  }

  it('is woken by what this process enqueues, until it closes', async () => {
    const { driver, events } = working();
    const insertMany = async (messages: readonly TaskMessage[]): Promise<string[]> => messages.map(({ id }) => id);
    const engine = createEngine({ ...driver, insertMany });
    const worker = await engine.work([]);
    await engine.enqueue(task('t', () => {}));
    await engine.enqueueMany(
      task('t', () => {}),
      [[]],
    );
    await worker.close();
    await engine.enqueue(task('t', () => {}));
    expect(events).toEqual(['wake', 'wake', 'stop', 'close']);
  });

  it('is woken by what is retried or promoted, and asked for no marks by a cancel that needs none', async () => {
    const { driver, events } = working();
    const findCancelled = jest.fn(async () => []);
    const engine = createEngine({
      ...driver,
      retry: async function* () {
        yield 1;
      },
      promote: async () => true,
      cancel: async () => 'cancelled',
      findCancelled,
    });
    await engine.work([]);
    await engine.retry(id);
    expect(events).toEqual(['wake']);
    await engine.promote(id);
    expect(events).toEqual(['wake', 'wake']);
    await engine.cancel(id);
    expect(findCancelled).not.toHaveBeenCalled();
    await engine.close();
  });

  it('need not be one that can be woken, and what is enqueued while it starts wakes none', async () => {
    const begin = deferred<DriverWorker>();
    const engine = createEngine(driverWith({ work: () => begin.promise }));
    const start = engine.work([]);
    await engine.enqueue(task('t', () => {}));
    begin.resolve({ stop: () => {}, close: async () => {} });
    await start;
    await engine.enqueue(task('t', () => {}));
    await engine.close();
  });

  it('is not woken any more while it closes', async () => {
    const { driver, runners, events } = working();
    const engine = createEngine(driver);
    const worker = await engine.work([task('a', never)]);
    const run = runners[0]?.run({ id, name: 'a', args: [], attempt: 1 });
    const closed = worker.close({ timeout: 5 });
    await engine.enqueue(task('t', () => {}));
    expect(await run).toEqual({ state: 'unused' });
    await closed;
    expect(events).toEqual(['stop', 'close']);
  });

  it('looks at once for what was cancelled here', async () => {
    const findCancelled = jest.fn(async (ids: readonly string[]) => ids);
    const { driver, runners } = working();
    const engine = createEngine({ ...driver, cancel: async () => 'signalled', findCancelled });
    await engine.work([
      task('a', () => new Promise((_, reject) => currentTask()?.signal.addEventListener('abort', reject))),
    ]);
    const run = runners[0]?.run({ id, name: 'a', args: [], attempt: 1 });
    await new Promise(setImmediate); // It has begun.
    expect(findCancelled).not.toHaveBeenCalled();
    expect(await engine.cancel(id)).toBe('signalled');
    expect(findCancelled).toHaveBeenCalledTimes(1); // Its own look would come in 2 s.
    expect(await run).toEqual({ state: 'cancelled' });
  });

  it('is woken by its driver, with the others of its engine', async () => {
    const { driver, runners, events } = working();
    const engine = createEngine(driver);
    for (const name of ['a', 'b']) await engine.work([task(name, () => {})]);
    runners[0]?.wakeAll();
    expect(events).toEqual(['wake', 'wake']);
  });

  it('keeps no store of the request that has enqueued what it runs', async () => {
    const messages: TaskMessage[] = [];
    const insert = async (message: TaskMessage): Promise<string> => {
      messages.push(message);
      return message.id;
    };
    const work = (runner: MessageRunner): DriverWorker => {
      const take = async (): Promise<void> => {
        for (const { id, name, json } of messages.splice(0)) {
          await runner.run({ id, name, args: JSON.parse(json), attempt: 1 });
        }
      };
      return { wake: () => void take(), stop: () => {}, close: async () => {} };
    };
    const engine = createEngine(driverWith({ insert, work }));
    const begun = deferred();
    const over = deferred();
    const runs = task('runs', () => {
      begun.resolve();
      return over.promise;
    });
    const worker = await engine.work([runs]);
    const storage = new AsyncLocalStorage<object>();
    const enqueueInStore = async (): Promise<WeakRef<object>> => {
      const store = {};
      await storage.run(store, () => engine.enqueue(runs));
      return new WeakRef(store);
    };
    const ref = await enqueueInStore();
    await begun.promise;
    expect(await countKept([ref])).toBe(0);
    over.resolve();
    await worker.close();
  });

  it('knows what the other workers of its engine know', async () => {
    const { driver, runners } = working();
    const engine = createEngine(driver);
    await engine.work([task('a', () => {})]);
    const second = await engine.work([task('b', () => {})]);
    const [first] = runners;
    expect(['a', 'b', 'c'].map((name) => first?.knows(name))).toEqual([true, false, false]);
    expect(['a', 'b', 'c'].map((name) => first?.isKnownHere(name))).toEqual([true, true, false]);
    await second.close();
    expect(first?.isKnownHere('b')).toBe(false);
  });

  it('is stopped, drained and closed in this order, once; closing the engine closes the rest', async () => {
    const { driver, runners, events } = working();
    const engine = createEngine(driver);
    const gate = deferred();
    const worker = await engine.work([task('a', () => gate.promise)]);
    const run = runners[0]?.run({ id, name: 'a', args: [], attempt: 1 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const closed = Promise.all([engine.close(), worker.close({ timeout: 60_000 }), engine.close(), worker.close()]);
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(events).toEqual(['stop']);
    gate.resolve();
    await closed;
    expect(await run).toEqual({ state: 'succeeded', result: undefined });
    expect(events).toEqual(['stop', 'close', 'driver closed']);
  });

  it('has no time limit where the engine is closed', async () => {
    const { driver, runners } = working();
    const engine = createEngine(driver);
    const gate = deferred();
    await engine.work([task('a', () => gate.promise)]);
    const run = runners[0]?.run({ id, name: 'a', args: [], attempt: 1 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const countTimeouts = trackTimeouts();
    const closed = engine.close();
    expect(countTimeouts()).toBe(0);
    gate.resolve();
    await closed;
    expect(await run).toEqual({ state: 'succeeded', result: undefined });
  });

  it('that cannot be closed does not keep the engine from closing the rest, and the engine says why', async () => {
    const events: string[] = [];
    const gone = new Error('gone');
    let workers = 0;
    const work = (): DriverWorker => {
      const number = ++workers;
      return {
        stop: () => {},
        close: () => {
          events.push(`worker ${number}`);
          return number === 1 ? Promise.reject(gone) : Promise.resolve();
        },
      };
    };
    const engine = createEngine(driverWith({ work, close: () => void events.push('driver') }));
    await engine.work([]);
    await engine.work([]);
    await expect(engine.close()).rejects.toBe(gone);
    expect(events).toEqual(['worker 1', 'worker 2', 'driver']);
  });

  it('and a driver that cannot be closed: the engine tells of both', async () => {
    const [gone, full] = [new Error('gone'), new Error('full')];
    const work = (): DriverWorker => ({ stop: () => {}, close: () => Promise.reject(gone) });
    const engine = createEngine(driverWith({ work, close: () => Promise.reject(full) }));
    await engine.work([]);
    await expect(engine.close()).rejects.toMatchObject({
      name: 'AggregateError',
      message: 'the engine could not be closed in full',
      errors: [gone, full],
    });
  });

  it('is closed also where its driver fails to stop it', async () => {
    const events: string[] = [];
    const stop = (): never => {
      throw new Error('no');
    };
    const work = (): DriverWorker => ({ stop, close: async () => void events.push('worker') });
    const engine = createEngine(driverWith({ work, close: () => void events.push('driver') }));
    await engine.work([]);
    await expect(engine.close()).rejects.toThrow('no');
    expect(events).toEqual(['worker', 'driver']);
  });

  it('tells of both where its driver can neither stop nor close it, also in the middle of its start', async () => {
    const [no, gone] = [new Error('no'), new Error('gone')];
    const stop = (): never => {
      throw no;
    };
    const message = 'the worker could not be closed in full';
    const both = { name: 'AggregateError', errors: [no, gone], message };
    const begin = deferred<DriverWorker>();
    const driverWorker: DriverWorker = { stop, close: () => Promise.reject(gone) };
    const worker = await createEngine(driverWith({ work: () => driverWorker })).work([]);
    await expect(worker.close()).rejects.toMatchObject(both);

    const engine = createEngine(driverWith({ work: () => begin.promise }));
    const start = engine.work([]);
    const closed = engine.close();
    begin.resolve(driverWorker);
    await expect(start).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', cause: both });
    await closed;
  });

  it('of several timeouts takes the shortest', async () => {
    const { driver, runners } = working();
    const engine = createEngine(driver);
    const worker = await engine.work([task('a', never)]);
    const run = runners[0]?.run({ id, name: 'a', args: [], attempt: 1 });
    await new Promise((resolve) => setTimeout(resolve, 5));
    const first = worker.close({ timeout: 60_000 });
    await worker.close({ timeout: 10 });
    await first;
    expect(await run).toEqual({ state: 'dropped' });
  });

  it('refuses bad options of close(), and goes on', async () => {
    const { driver, events } = working();
    const worker = await createEngine(driver).work([]);
    await expect(worker.close({ timeout: -1 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(events).toEqual([]);
  });

  it('runs tasks that enqueue others by the package, on the engine of the worker', async () => {
    const { driver, runners } = working();
    const engine = createEngine(driver);
    const second = task('second', (_n: number) => {});
    await engine.work([task('first', async () => [currentTask()?.name, await enqueue(second, 1)])]);
    const outcome = await runners[0]?.run({ id, name: 'first', args: [], attempt: 1 });
    expect(outcome).toMatchObject({ state: 'succeeded', result: ['first', { id: expect.any(String) }] });
    await expect(enqueue(second, 2)).rejects.toMatchObject({ code: 'ERR_NO_RESPONSE_CONTEXT' });
  });

  it('that cannot be started leaves nothing behind; one started while the engine closes is closed', async () => {
    const { driver, events } = working();
    const failing = createEngine({ ...driver, work: () => Promise.reject(new Error('away')) });
    await expect(failing.work([])).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await failing.close();
    expect(events.splice(0)).toEqual(['driver closed']);
    const started = deferred();
    const slow = createEngine({
      ...driver,
      work: async (runner) => {
        await started.promise;
        return driver.work?.(runner) as DriverWorker | Promise<DriverWorker>;
      },
    });
    const working_ = slow.work([]);
    const closed = slow.close();
    started.resolve();
    await expect(working_).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await closed;
    expect(events).toEqual(['stop', 'close', 'driver closed']);
  });
});

describe('close', () => {
  it('waits for calls under way; then every call is refused', async () => {
    const stored = deferred();
    const events: string[] = [];
    const insert = async (): Promise<string> => {
      await stored.promise;
      events.push('stored');
      return id;
    };
    const engine = createEngine(driverWith({ insert, close: () => void events.push('closed') }));
    const enqueued = engine.enqueue(task('t', () => {}));
    const closed = engine.close();
    await new Promise((resolve) => setTimeout(resolve, 5));
    expect(events).toEqual([]);
    stored.resolve();
    await Promise.all([enqueued, closed]);
    expect(events).toEqual(['stored', 'closed']);
    for (const call of [() => engine.enqueue(task('t', () => {})), () => engine.get(id)]) {
      await expect(call()).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('the engine is closed'),
      });
    }
  });
});
