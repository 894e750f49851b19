// A thread that dies fails the task that it runs, and no other.

import { setTimeout as sleep } from 'node:timers/promises';
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
    expect(all.length).toBeLessThanOrEqual(3);
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
