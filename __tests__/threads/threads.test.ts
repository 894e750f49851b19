// threads(): what is refused where it is given, which function a task calls, and what crosses between the threads.

import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { inspect } from 'node:util';
import { SHARE_ENV } from 'node:worker_threads';
import { type ThreadOptions, type ThreadTaskOptions, threads } from '../../lib/threads/index';
import { cpuTime } from '../fixtures/cpu-time';
import { workFile } from './fixtures/compiled-sources';
import { cells, openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

const fixture = (name: string): string => join(__dirname, 'fixtures', name);

describe('threads()', () => {
  it.each<[options: object, message: string]>([
    [{ maxThread: 2 }, 'threads(): unknown option "maxThread"; there are argv, env, execArgv, idleTimeout, maxThreads'],
    [{ maxThreads: 0 }, 'threads(): "maxThreads" must be a whole number from 1 to 10000, not 0'],
    [
      { maxThreads: Number.POSITIVE_INFINITY },
      'threads(): "maxThreads" must be a whole number from 1 to 10000, not Infinity',
    ],
    [{ minThreads: -1 }, 'threads(): "minThreads" must be a whole number from 0, not -1'],
    [{ minThreads: 3, maxThreads: 2 }, 'threads(): "minThreads" must not be over "maxThreads": 3 is over 2'],
    [{ idleTimeout: '1s' }, `threads(): "idleTimeout" must be milliseconds, more than 0`],
    [{ resourceLimits: 5 }, 'threads(): "resourceLimits" must be an object, not 5'],
    [{ resourceLimits: { heap: 5 } }, 'resourceLimits: unknown option "heap"; there are codeRangeSizeMb, maxOld'],
    [
      { resourceLimits: { maxOldGenerationSizeMb: 1 } },
      'resourceLimits: "maxOldGenerationSizeMb" must be a number from 4',
    ],
    [
      { resourceLimits: { codeRangeSizeMb: '5' } },
      `resourceLimits: "codeRangeSizeMb" must be a number over 0, not '5'`,
    ],
    [{ resourceLimits: { stackSizeMb: 0 } }, 'resourceLimits: "stackSizeMb" must be a number over 0, not 0'],
    [{ env: 'none' }, `threads(): "env" must be an object, not 'none'`],
    [{ argv: [1] }, 'threads(): "argv" must be an array of strings, not [ 1 ]'],
    [{ execArgv: '--import tsx' }, `threads(): "execArgv" must be an array of strings, not '--import tsx'`],
  ])('refuses %p', (options, message) => {
    expect(() => threads(options as ThreadOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
    );
  });

  it.each<ThreadOptions | undefined>([
    undefined,
    {},
    { minThreads: 0 },
    { minThreads: 100 },
    { maxThreads: 1 },
    { idleTimeout: 0, env: SHARE_ENV, resourceLimits: { stackSizeMb: 4 } },
  ])('takes %p, and starts no thread before the first task', async (options) => {
    await threads(options).close();
  });
});

describe('pool.task()', () => {
  const pool = openThreads();

  it.each<[module: unknown, message: string]>([
    ['./work.js', `the module must be a file: URL or an absolute path, not './work.js'`],
    ['https://example.com/work.js', `the module must be a file: URL or an absolute path, not 'https`],
    [new URL('data:text/javascript,'), 'the module must be a file: URL or an absolute path, not '],
    ['file://elsewhere/work.js', `the module must be a file: URL or an absolute path, not 'file://elsewhere/work.js'`],
    [undefined, 'the module must be a file: URL or an absolute path, not undefined'],
    [() => 1, 'the module must be a file: URL or an absolute path, not [Function'],
    [join(__dirname, 'fixtures/missing.js'), `there is no file ${join(__dirname, 'fixtures/missing.js')}`],
  ])('refuses the module %p', (module, message) => {
    expect(() => pool.task('work', module as string)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_TASK',
        message: expect.stringContaining(`pool.task("work"): ${message}`),
      }),
    );
  });

  it('refuses a bad name, and bad options', () => {
    expect(() => pool.task('', fixture('work.js'))).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_TASK',
        message: "pool.task(): the name must be a string that is not empty, not ''",
      }),
    );
    expect(() => pool.task('work', fixture('work.js'), { timeOut: 1 } as ThreadTaskOptions)).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('pool.task(): unknown option "timeOut"; there are delay, export, key'),
      }),
    );
    expect(() => pool.task('work', fixture('work.js'), { export: '' })).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
    );
  });

  it('makes a task with a name and options, and with() copies it', async () => {
    const sum = workTask(pool, 'default', { timeout: 5000 });
    expect(sum.name).toBe('default');
    const other = sum.with({ retries: 2 });
    expect(other).not.toBe(sum);
    expect(await other(1, 2)).toBe(3);
  });

  it.each<[title: string, module: string | URL]>([
    ['a URL', pathToFileURL(workFile)],
    ['a URL as text', pathToFileURL(workFile).href],
    ['a path', workFile],
  ])('takes %s', async (_title, module) => {
    const sum = pool.task<typeof import('./fixtures/work').default>('sum', module);
    expect(await sum(1, 2, 3)).toBe(6);
  });

  it.each<[file: string, exported: string | undefined]>([
    ['function.cjs', undefined],
    ['functions.cjs', undefined],
    ['functions.cjs', 'named'],
    ['functions.mjs', undefined],
    ['functions.mjs', 'named'],
    ['compiled.cjs', undefined],
    ['compiled.cjs', 'named'],
    ['late.mjs', undefined],
  ])('calls the function of %s, export %s', async (file, exported) => {
    const sum = pool.task<(a: number, b: number) => number>('sum', fixture(file), { export: exported });
    expect(await sum(1, 2)).toBe(3);
  });

  it.each<[file: string, exported: string, there: string]>([
    ['functions.mjs', 'missing', 'default, named, notAFunction'],
    ['functions.mjs', 'notAFunction', 'notAFunction'],
    ['empty.mjs', 'default', 'nothing'],
  ])('fails without a retry where %s exports no function %s', async (file, exported, there) => {
    const broken = pool.task<() => void>('broken', fixture(file), { export: exported });
    await expect(broken()).rejects.toMatchObject({
      code: 'ERR_INVALID_TASK',
      message: expect.stringMatching(
        new RegExp(`task "broken": .*${file} exports no function "${exported}", but .*${there}`),
      ),
      cause: { name: 'NonRetryableError' },
    });
  });

  it('fails with what the module throws while it is loaded', async () => {
    const broken = pool.task<() => void>('broken', fixture('throws.mjs'));
    await expect(broken()).rejects.toMatchObject({ name: 'TypeError', message: 'not loaded', code: 'E_LOAD' });
    await expect(broken()).rejects.toMatchObject({ name: 'TypeError', message: 'not loaded', code: 'E_LOAD' });
  });

  it('gives the threads the environment and the arguments of the pool', async () => {
    const own = openThreads({
      env: { ...process.env, COLOR: 'blue' },
      argv: ['--one'],
      resourceLimits: { maxOldGenerationSizeMb: 200 },
      maxThreads: 1,
    });
    const look = own.task<() => object>('look', fixture('surroundings.mjs'));
    expect(await look()).toEqual({ color: 'blue', argv: ['--one'], heap: 200 });
  });
});

it('a call with a large argument takes about as long as its clone', async () => {
  const pool = openThreads({ maxThreads: 1 });
  const length = workTask(pool, 'lengthOf');
  await length([]);
  const large = Array.from({ length: 500_000 }, (_, number) => number);
  const time = (call: () => void): number => {
    const before = cpuTime();
    call();
    return cpuTime() - before;
  };
  const clone = Math.max(...[1, 2, 3].map(() => time(() => structuredClone(large))));
  let result: Promise<number> | undefined;
  const call = time(() => {
    result = length(large);
  });
  expect(await result).toBe(large.length);
  expect(call / clone).toBeLessThan(10);
});

describe('arguments and results', () => {
  const pool = openThreads();
  const echo = workTask(pool, 'echo');
  const make = workTask(pool, 'make');

  it.each<[value: unknown]>([
    [undefined],
    [null],
    [0],
    [-0],
    [Number.NaN],
    [10n],
    ['text'],
    [[1, [2, undefined]]],
    [{ a: { b: new Date(5) } }],
    [new Map([[1, new Set(['a'])]])],
    [new Uint8Array([1, 2, 3])],
    [/a+/gi],
  ])('%p crosses in both directions', async (value) => {
    expect(await echo(value)).toEqual(value);
  });

  it('are copies', async () => {
    const given = { list: [1] };
    const pending = echo(given);
    given.list.push(2);
    expect(await pending).toEqual({ list: [1] });
  });

  it('are copies of the moment of the call, also where no thread is free', async () => {
    const compute = workTask(pool, 'computeFor');
    const busy = [compute(50), compute(50)];
    const given = { list: [1] };
    const pending = echo(given);
    given.list.push(2);
    expect(await pending).toEqual({ list: [1] });
    await Promise.all(busy);
  });

  it('share what is in shared memory', async () => {
    const shared = cells(3);
    await workTask(pool, 'countRunning')(shared, 1);
    expect([...shared]).toEqual([0, 1, 1]);
  });

  const self: { self: unknown; fn: () => void } = { self: undefined, fn: () => {} };
  self.self = self;
  const nested = (depth: number): unknown => {
    let value: unknown = [];
    for (let level = 0; level < depth; level++) value = [value];
    return value;
  };
  const deep = (depth: number): unknown => {
    let value: unknown = () => {};
    for (let level = 0; level < depth; level++) value = [value];
    return value;
  };

  const unclonable: [why: string, make: () => unknown][] = [
    ['args[0] is [Function: done], which cannot be cloned', () => function done() {}],
    ['args[0] is Symbol(s), which cannot be cloned', () => Symbol('s')],
    ['args[0].a[1].done is [Function: done], which cannot be cloned', () => ({ a: [1, { done() {} }] })],
    ['args[0]["a b"] is a promise, which cannot be cloned', () => ({ 'a b': Promise.resolve() })],
    ["args[0].get('k') is [Function (anonymous)], which cannot be cloned", () => new Map([['k', (() => () => {})()]])],
    ['args[0].keys(Symbol(k)) is Symbol(k), which cannot be cloned', () => new Map([[Symbol('k'), 1]])],
    ['args[0].values() is Symbol(v), which cannot be cloned', () => new Set([1, Symbol('v')])],
    ['args[0].fn is [Function: fn], which cannot be cloned', () => self],
    ['args[0] is WeakMap { <items unknown> }, which cannot be cloned', () => new WeakMap()],
    // From Node 26.10 on it is shown as a Proxy.
    [`args[0] is ${inspect(new Proxy({}, {}))}, which cannot be cloned`, () => new Proxy({}, {})],
    [
      'args[0].value throws when it is read',
      () => ({
        get value() {
          throw new Error('hands off');
        },
      }),
    ],
    [
      'args[0].value throws when it is read',
      () => ({
        get value() {
          throw 'no error at all';
        },
      }),
    ],
    ['args is nested too deeply to be cloned', () => nested(100_000)],
    ['args is nested too deeply to be cloned', () => deep(150)],
  ];

  it.each(unclonable)('%s', async (why, makeValue) => {
    const error = { code: 'ERR_TASK_NOT_SERIALIZABLE', message: `task "echo": ${why}` };
    await expect(echo(makeValue())).rejects.toMatchObject({ ...error, cause: { name: 'NonRetryableError' } });
    // The same where no thread is free.
    const busy = Promise.all([workTask(pool, 'computeFor')(50), workTask(pool, 'computeFor')(50)]);
    await expect(echo(makeValue())).rejects.toMatchObject(error);
    await busy;
  });

  it('may have a part that would have to be transferred, and so cannot be cloned', async () => {
    const { port1, port2 } = new MessageChannel();
    await expect(echo({ ports: [port1] })).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: expect.stringMatching(/^task "echo": args\[0\]\.ports\[0\] is MessagePort.*, which cannot be cloned$/s),
    });
    port2.close();
  });

  it('fail as well where they cannot be cloned once, and can the next time', async () => {
    const busy = Promise.all([workTask(pool, 'computeFor')(50), workTask(pool, 'computeFor')(50)]);
    let reads = 0;
    const value = {
      get odd() {
        if (reads++ === 0) throw new Error('not now');
        return 1;
      },
    };
    await expect(echo(value)).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: 'task "echo": a value cannot be cloned',
    });
    await busy;
  });

  it.each<[why: string, source: string]>([
    ['result is [Function: done], which cannot be cloned', 'function done() {}'],
    ['result is Symbol(s), which cannot be cloned', "Symbol('s')"],
    ['result.a[1] is [Function (anonymous)], which cannot be cloned', '({ a: [1, (() => () => {})()] })'],
    ['result.value throws when it is read', "({ get value() { throw new Error('hands off'); } })"],
    [
      'result is nested too deeply to be cloned',
      '(() => { let v = []; for (let i = 0; i < 1e5; i++) v = [v]; return v; })()',
    ],
  ])('%s, and the thread lives on', async (why, source) => {
    const only = openThreads({ maxThreads: 1 });
    const threadBefore = await workTask(only, 'thread')();
    await expect(workTask(only, 'make')(source)).rejects.toMatchObject({
      code: 'ERR_TASK_NOT_SERIALIZABLE',
      message: `task "make": ${why}`,
      cause: { name: 'NonRetryableError' },
    });
    expect(await workTask(only, 'thread')()).toBe(threadBefore);
  });

  it('awaits thenables', async () => {
    expect(await make('({ then(resolve) { resolve(5); } })')).toBe(5);
  });
});
