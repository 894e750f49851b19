// A thread that dies fails the task that it runs, and no other.

import { setTimeout as sleep } from 'node:timers/promises';
import type { ThreadPool } from '../../lib/threads/index';
import { serveTasks } from '../fixtures/serve-tasks';
import { begun, cells, openThreads, set, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

/** With the neighbour that all must survive. */
function openPair(options = {}) {
  const pool = openThreads(options);
  return { pool, neighbour: () => workTask(pool, 'echoLater')('still here', 500) };
}

/** Jest gives tests a copy of `process`; warnings are emitted on the real one. */
function warnings(): { readonly all: string[] } {
  const all: string[] = [];
  const spy = jest.spyOn(process, 'emitWarning').mockImplementation((warning) => void all.push(String(warning)));
  spies.push(spy);
  return { all };
}

const spies: jest.SpyInstance[] = [];

afterEach(() => {
  for (const spy of spies.splice(0)) spy.mockRestore();
});

const died = (message: string) => ({ code: 'ERR_THREAD_DIED', message: expect.stringContaining(message) });

describe('a task fails with ERR_THREAD_DIED', () => {
  it.each([0, 7])('where it calls process.exit(%i)', async (code) => {
    const { pool, neighbour } = openPair();
    const other = neighbour();
    await expect(workTask(pool, 'exit')(code)).rejects.toMatchObject(
      died(`task "exit" has lost its thread: worker exited with code: ${code}`),
    );
    expect(await other).toBe('still here');
    expect(await workTask(pool, 'default')(1)).toBe(1);
  });

  it('where its memory is full', async () => {
    const { pool, neighbour } = openPair({ resourceLimits: { maxOldGenerationSizeMb: 60 } });
    const other = neighbour();
    await expect(workTask(pool, 'allocate')()).rejects.toMatchObject({
      ...died('task "allocate" has lost its thread: Worker terminated due to reaching memory limit'),
      cause: { code: 'ERR_WORKER_OUT_OF_MEMORY' },
    });
    expect(await other).toBe('still here');
  });

  it.each([
    ['leaveTimer', 'left behind'],
    ['leaveRejection', 'nobody listens'],
    ['leaveText', 'only text'],
    ['leaveNumber', '5'],
  ] as const)('where another one has left behind what throws: %s', async (name, message) => {
    const { pool, neighbour } = openPair({ minThreads: 0 });
    const [trigger, started] = [cells(), cells()];
    await workTask(pool, name)(trigger);
    const pending = workTask(pool, 'waitAfter')(started); // In the same thread: there is no other yet.
    const other = neighbour();
    await begun(started);
    set(trigger);
    await expect(pending).rejects.toMatchObject(died(`task "waitAfter" has lost its thread: ${message}`));
    expect(await other).toBe('still here');
  });

  it('and it is tried again, in a new thread', async () => {
    const { pool } = openPair();
    const { middleware, respond, reports } = await serveTasks();
    const task = workTask(pool, 'exit', { retries: { limit: 1, minDelay: 1 } });
    await respond((tasks) => tasks.add(task, 1));
    await middleware.idle();
    expect(reports).toMatchObject([{ error: { code: 'ERR_THREAD_DIED' }, task: { name: 'exit', attempt: 2 } }]);
  });

  it.each<[title: string, options: object]>([
    ['is given options that Node.js does not have', { execArgv: ['--no-such-option'] }],
    ['cannot load its first module', { execArgv: ['--require', './no-such-module.cjs'] }],
    [
      'cannot load its first module, and is one that is started on demand',
      { execArgv: ['--require', './no-such.cjs'], minThreads: 0 },
    ],
    [
      'ends before it has begun',
      { execArgv: ['--require', require.resolve('./fixtures/exits-early.cjs')], minThreads: 0 },
    ],
    ['has no memory to start with', { resourceLimits: { maxOldGenerationSizeMb: 4 }, minThreads: 0 }],
  ])('where its thread %s', async (_title, options) => {
    const { all } = warnings();
    const pool = openThreads(options);
    const sum = workTask(pool, 'default');
    const outcomes = await Promise.allSettled([sum(1), sum(2), sum(3)]);
    expect(outcomes.map((outcome) => outcome.status === 'rejected' && outcome.reason)).toEqual(
      Array(3).fill(expect.objectContaining({ code: 'ERR_THREAD_DIED' })),
    );
    expect(all.length).toBeLessThanOrEqual(15); // Each call is posted at most five times.
  });
});

describe('a thread that dies between two tasks', () => {
  it.each([
    ['leaveTimer', /^a thread of background tasks died between two tasks: Error: left behind\n +at /],
    ['leaveText', /^a thread of background tasks died between two tasks: 'only text'$/],
  ] as const)('fails none, and the process is warned: %s', async (name, warning) => {
    const { all } = warnings();
    const pool = openThreads({ maxThreads: 1 });
    const trigger = cells();
    const thread = await workTask(pool, 'thread')();
    await workTask(pool, name)(trigger);
    set(trigger);
    while (all.length === 0) await sleep(5);
    expect(all).toEqual([expect.stringMatching(warning)]);
    expect(await workTask(pool, 'thread')()).not.toBe(thread);
  });
});

describe('a call whose thread dies before it begins', () => {
  beforeEach(() => void warnings()); // Not all deaths come between two tasks.

  /** Makes a call, and lets the only thread die when it has the call in its port. */
  async function callDying<R>(
    pool: ThreadPool,
    call: () => Promise<R>,
    leave: 'leaveThrow' | 'leaveThrowInTurn' = 'leaveThrow',
  ): Promise<R> {
    const cell = cells();
    await workTask(pool, leave)(cell);
    await begun(cell);
    const result = call();
    await new Promise(setImmediate);
    Atomics.store(cell, 0, 2);
    Atomics.notify(cell, 0);
    return result;
  }

  it.each([
    ['a number', 1],
    ['an object', { a: 1, list: ['b'] }],
    ['a small buffer', new Uint8Array(100_000)],
  ])('runs in a new thread, with %s', async (_title, value) => {
    const { all } = warnings();
    const pool = openThreads({ maxThreads: 1 });
    const thread = await workTask(pool, 'thread')();
    expect(await callDying(pool, () => workTask(pool, 'echo')(value))).toEqual(value);
    expect(await workTask(pool, 'thread')()).not.toBe(thread);
    expect(all).toEqual([]);
  });

  it('runs in a new thread also where its thread has read it in the turn at whose end it dies', async () => {
    const pool = openThreads({ maxThreads: 1 });
    await workTask(pool, 'thread')();
    const call = () => workTask(pool, 'echoLater')('here', 20);
    for (let round = 0; round < 5; round++) expect(await callDying(pool, call, 'leaveThrowInTurn')).toBe('here');
  });

  it('runs once', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const counts = cells(3);
    for (let round = 0; round < 5; round++) await callDying(pool, () => workTask(pool, 'countRunning')(counts, 1));
    expect(counts).toEqual(Int32Array.of(0, 1, 5));
  });

  it('runs also where all threads die of what is left behind, again and again', async () => {
    const pool = openThreads({ maxThreads: 2 });
    const numbers = Array.from({ length: 15 }, (_, number) => number);
    const sums = numbers.map(async (number) => {
      // It may fail itself, if its thread dies before it has answered.
      const deadly = workTask(pool, 'leaveThrow')().catch(() => {});
      const [sum] = await Promise.all([workTask(pool, 'default')(number, 1), deadly]);
      return sum;
    });
    expect(await Promise.all(sums)).toEqual(numbers.map((number) => number + 1));
  });

  it('runs with the arguments of the moment at which it was made', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const value = { text: 'as it was' };
    const echoed = await callDying(pool, () => {
      const call = workTask(pool, 'echo')(value);
      value.text = 'changed';
      return call;
    });
    expect(echoed).toEqual({ text: 'as it was' });
  });

  it('runs with large arguments if it had to wait for the thread, and fails otherwise', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const large = new Uint8Array(200_000);
    await expect(callDying(pool, () => workTask(pool, 'echo')(large))).rejects.toMatchObject(died('left behind'));
    const cell = cells();
    const [, echoed] = await Promise.all([
      workTask(pool, 'leaveThrow')(cell),
      workTask(pool, 'echo')(large),
      begun(cell).then(() => void setImmediate(() => Atomics.notify(cell, 0, Atomics.store(cell, 0, 2)))),
    ]);
    expect(echoed).toEqual(large);
  });
});

describe('a task fails as on the event loop, and its thread lives on', () => {
  it('where it recurses to the bottom of the stack', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const thread = await workTask(pool, 'thread')();
    await expect(workTask(pool, 'recurse')()).rejects.toMatchObject({
      name: 'RangeError',
      message: 'Maximum call stack size exceeded',
    });
    expect(await workTask(pool, 'thread')()).toBe(thread);
  });

  it('where it posts messages of its own', async () => {
    const pool = openThreads({ maxThreads: 1 });
    await workTask(pool, 'postOwn')();
    expect(await workTask(pool, 'default')(1)).toBe(1);
  });
});

describe('a thread that dies after its signal was aborted', () => {
  it('ends the task as its time limit does', async () => {
    const { respond } = await serveTasks();
    const pool = openThreads();
    const task = workTask(pool, 'exitOnAbort', { timeout: 100 });
    const { finished } = await respond((tasks) => tasks.add(task, cells()));
    expect(await finished).toMatchObject({ status: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
  });
});
