// A task in a thread is a task like any other: behind add() it has its attempts, its handle, its signal and its time limit.

import { tracingChannel } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TaskHandle, TaskTrace } from '../../lib/index';
import { serveTasks } from '../fixtures/serve-tasks';
import { begun, cells, openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

const pool = openThreads();

describe('a task in a thread', () => {
  it('runs after the response, and its handle has the result', async () => {
    const { middleware, respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'default'), 1, 2));
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 3 });
    expect(handle).toMatchObject({ name: 'default', status: 'succeeded' });
    await middleware.idle();
    expect(middleware.stats).toMatchObject({ succeeded: 1, failed: 0 });
  });

  it.each(['describeTask', 'describeTaskLater'] as const)('finds itself by currentTask(): %s', async (name) => {
    const { respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const handle = await respond((tasks) => tasks.add(workTask(pool, name)));
    expect(await handle.finished).toEqual({
      status: 'succeeded',
      value: { id: handle.id, name, attempt: 1, aborted: false },
    });
  });

  it('outside of tasks is a plain call, which belongs to no task', async () => {
    expect(await workTask(pool, 'describeTask')()).toBeUndefined();
    await workTask(pool, 'report')('nobody listens');
  });

  it('that another task calls belongs to that one', async () => {
    const { respond } = await serveTasks();
    const describe = workTask(pool, 'describeTask');
    const handle = await respond((tasks) =>
      tasks.add(async function outer() {
        await workTask(pool, 'report')('from inside');
        return describe();
      }),
    );
    expect(await handle.finished).toEqual({
      status: 'succeeded',
      value: { id: handle.id, name: 'outer', attempt: 1, aborted: false },
    });
    expect(handle.progress).toBe('from inside');
  });

  it('is skipped by "when", and retried as any task is', async () => {
    const { middleware, reports, respond } = await serveTasks();
    const shared = cells();
    const [unwanted, failing] = await respond((tasks) => [
      tasks.add(workTask(pool, 'default', { when: () => false })),
      tasks.add(workTask(pool, 'failAndCount', { retries: { limit: 2, minDelay: 1 } }), shared),
    ]);
    expect(await unwanted.finished).toEqual({ status: 'skipped' });
    expect(await failing.finished).toMatchObject({ status: 'failed', error: { message: 'attempt 3' } });
    await middleware.idle();
    expect(reports).toMatchObject([{ error: { message: 'attempt 3' }, task: { name: 'failAndCount', attempt: 3 } }]);
  });

  it.each(['giveUp', 'giveUpByCause'] as const)(
    'is not retried where it throws a NonRetryableError: %s',
    async (name) => {
      const { middleware, reports, respond } = await serveTasks({ retries: { limit: 5, minDelay: 1 } });
      await respond((tasks) => tasks.add(workTask(pool, name)));
      await middleware.idle();
      expect(reports).toMatchObject([{ task: { attempt: 1 } }]);
    },
  );

  it('is not retried where its arguments or its result cannot be cloned', async () => {
    const { middleware, reports, respond } = await serveTasks({ retries: { limit: 5, minDelay: 1 } });
    await respond((tasks) => {
      tasks.add(workTask(pool, 'echo'), () => {});
      tasks.add(workTask(pool, 'make'), '() => {}');
    });
    await middleware.idle();
    expect(reports).toMatchObject([
      { error: { code: 'ERR_TASK_NOT_SERIALIZABLE' }, task: { name: 'echo', attempt: 1 } },
      { error: { code: 'ERR_TASK_NOT_SERIALIZABLE' }, task: { name: 'make', attempt: 1 } },
    ]);
  });

  it('is traced, from its call to its end', async () => {
    const { middleware, respond } = await serveTasks();
    const events: [string, TaskTrace][] = [];
    const record = (event: string) => (trace: unknown) => void events.push([event, trace as TaskTrace]);
    const subscribers = {
      start: record('start'),
      end: record('end'),
      asyncStart: record('asyncStart'),
      asyncEnd: record('asyncEnd'),
      error: record('error'),
    };
    const channel = tracingChannel('express-background-tasks:task');
    channel.subscribe(subscribers);
    await respond((tasks) => tasks.add(workTask(pool, 'default'), 1, 2));
    await middleware.idle();
    channel.unsubscribe(subscribers);
    expect(events.map(([event]) => event)).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
    expect(events[0]?.[1]).toMatchObject({ task: { name: 'default', attempt: 1 }, args: [1, 2], result: 3 });
  });

  it.each([
    ['addAfter', 'after() found no response being handled'],
    ['enqueueHere', 'enqueue() found neither a response being handled nor a worker'],
  ] as const)('has neither a response nor an engine in its thread: %s', async (name, message) => {
    const { respond } = await serveTasks();
    const { finished } = await respond((tasks) => tasks.add(workTask(pool, name)));
    expect(await finished).toMatchObject({
      status: 'failed',
      error: {
        name: 'BackgroundTasksError',
        code: 'ERR_NO_RESPONSE_CONTEXT',
        message: expect.stringContaining(message),
      },
    });
  });
});

describe('progress()', () => {
  it('reaches the handle, while the thread computes as well', async () => {
    const { respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'reportAndCompute'), [1, { half: true }], 1000));
    while (handle.progress === undefined) await sleep(1);
    expect(handle.status).toBe('running');
    expect(await handle.finished).toMatchObject({ status: 'succeeded' });
    expect(handle.progress).toEqual({ half: true });
  });

  it('keeps the last value of many, also of those that come faster than they are taken', async () => {
    const { respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'reportForMs'), 200));
    const outcome = await handle.finished;
    expect(outcome).toEqual({ status: 'succeeded', value: handle.progress });
    expect(handle.progress).toBeGreaterThan(100);
  });

  it('that was held back follows when the thread yields', async () => {
    const { respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'reportManyAndWait'), 10_000));
    while (handle.progress !== 10_000) await sleep(5);
    handle.cancel();
    await handle.finished;
  });

  it('is ignored after the end of the task, and where it is no JSON', async () => {
    const { respond } = await serveTasks();
    const [late, strange] = await respond((tasks) => [
      tasks.add(workTask(pool, 'reportBehind')),
      tasks.add(workTask(pool, 'report'), 1, 10n, 2),
    ]);
    await late.finished;
    await strange.finished;
    await sleep(40);
    expect([late.progress, strange.progress]).toEqual([undefined, 2]);
  });
});

describe('the signal', () => {
  it.each([
    ['untilAborted', 'aborted'],
    ['untilThrown', 'thrown'],
    ['untilEvent', 'event'],
  ] as const)('is aborted in the thread by cancel(): %s', async (name, how) => {
    const { middleware, respond, reports } = await serveTasks();
    const shared = cells();
    const handle = await respond((tasks) => tasks.add(workTask(pool, name), shared));
    await begun(shared);
    expect(handle.cancel()).toBe(false);
    // It ends by itself, and so it has succeeded.
    expect(await handle.finished).toEqual({
      status: 'succeeded',
      value: { how, reason: 'AbortError', message: 'The task was cancelled' },
    });
    await middleware.idle();
    expect(reports).toEqual([]);
  });

  it('ends what waits for it, and the task is cancelled', async () => {
    const { respond, reports } = await serveTasks();
    const shared = cells();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'untilSleepEnds'), shared));
    await begun(shared);
    handle.cancel();
    expect(await handle.finished).toEqual({ status: 'cancelled' });
    expect(reports).toEqual([]);
  });

  it.each(['untilAborted', 'untilEvent'] as const)('is aborted by the time limit: %s', async (name) => {
    const { middleware, respond, reports } = await serveTasks();
    const inside = cells();
    const { finished } = await respond((tasks) => tasks.add(workTask(pool, name, { timeout: 50 }), inside));
    expect(await finished).toMatchObject({ status: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
    await middleware.idle();
    expect(reports).toMatchObject([
      { error: { code: 'ERR_TASK_TIMEOUT', message: `task "${name}" did not end within 50 ms` }, task: { attempt: 1 } },
    ]);
  });

  it('is aborted by close() at its timeout, with ERR_TASK_ABANDONED', async () => {
    const { middleware, respond } = await serveTasks();
    const shared = cells();
    const told = workTask(pool, 'untilAborted');
    const inner: unknown[] = [];
    const handle = await respond((tasks) =>
      tasks.add(async () => {
        inner.push(await told(shared));
      }),
    );
    await begun(shared);
    expect((await middleware.close({ timeout: 1 })).abandoned).toHaveLength(1);
    expect(await handle.finished).toMatchObject({ status: 'abandoned' });
    while (inner.length === 0) await sleep(5);
    expect(inner).toMatchObject([{ reason: 'BackgroundTasksError' }]);
  });

  it('that was aborted before the call ends the call at once', async () => {
    const { respond } = await serveTasks();
    const sum = workTask(pool, 'default');
    const failures: unknown[] = [];
    const handles: TaskHandle[] = [];
    await respond((tasks) => {
      const cancelItself = async (): Promise<void> => {
        handles[0]?.cancel();
        await sum(1).catch((error: unknown) => failures.push(error));
      };
      handles.push(tasks.add(cancelItself));
    });
    await handles[0]?.finished;
    expect(failures).toMatchObject([{ name: 'AbortError' }]);
  });

  it('leaves a second to a thread: what ends in that time has ended by itself', async () => {
    const { respond } = await serveTasks();
    const shared = cells();
    const handle = await respond((tasks) => tasks.add(workTask(pool, 'ignoreSignal'), shared, 300));
    await begun(shared);
    handle.cancel();
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'ended in time' });
  });
});

describe('a thread that does not end', () => {
  it('is terminated a second after the time limit, and burns no CPU afterwards', async () => {
    const { respond } = await serveTasks();
    const counter = cells();
    const { finished } = await respond((tasks) =>
      tasks.add(workTask(pool, 'countForever', { timeout: 1000 }), counter),
    );
    await begun(counter);
    const start = performance.now();
    expect(await finished).toMatchObject({ status: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
    expect(performance.now() - start).toBeGreaterThan(950);
    const last = counter[0];
    await sleep(100);
    expect(counter[0]).toBe(last);
  });

  it.each(['countForever', 'ignoreSignal'] as const)('is terminated a second after cancel(): %s', async (name) => {
    const { respond, reports } = await serveTasks();
    const shared = cells();
    const handle = await respond((tasks) => tasks.add(workTask(pool, name), shared, 60_000));
    await begun(shared);
    handle.cancel();
    expect(await handle.finished).toEqual({ status: 'cancelled' });
    expect(reports).toEqual([]);
  });

  it('never settles, and its neighbour goes on', async () => {
    const own = openThreads();
    const { respond } = await serveTasks();
    const neighbour = workTask(own, 'echoLater')('still here', 2500);
    const { finished } = await respond((tasks) => tasks.add(workTask(own, 'never', { timeout: 50 })));
    expect(await finished).toMatchObject({ status: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
    expect(await neighbour).toBe('still here');
  });

  it('gives way to a new one: the next attempt begins when it has ended, and not before', async () => {
    const { middleware, respond, reports } = await serveTasks();
    const shared = cells(3);
    const task = workTask(pool, 'writeForever', { timeout: 300, retries: { limit: 2, minDelay: 1, jitter: false } });
    await respond((tasks) => tasks.add(task, shared));
    await middleware.idle();
    expect(reports).toMatchObject([{ error: { code: 'ERR_TASK_TIMEOUT' }, task: { attempt: 3 } }]);
    const [, overlapping, all] = shared;
    expect(overlapping).toBe(0);
    expect(all).toBeGreaterThan(0);
  });
});

describe('waiting for a free thread', () => {
  it('does not count towards the time limit', async () => {
    const own = openThreads({ maxThreads: 1 });
    await workTask(own, 'default')(); // The thread is there.
    const { middleware, respond } = await serveTasks();
    const compute = workTask(own, 'computeFor', { timeout: 1500 });
    const handles = await Promise.all([1, 2, 3].map(() => respond((tasks) => tasks.add(compute, 800))));
    await middleware.idle();
    expect(handles.map(({ status }) => status)).toEqual(['succeeded', 'succeeded', 'succeeded']);
  });

  it('does not count towards it while the thread starts, either', async () => {
    const slow = openThreads({
      execArgv: ['--require', require.resolve('./fixtures/slow-start.cjs')],
    });
    const { respond } = await serveTasks();
    const { finished } = await respond((tasks) => tasks.add(workTask(slow, 'default', { timeout: 2900 }), 1));
    expect(await finished).toEqual({ status: 'succeeded', value: 1 });
  });

  it('ends at once when the task is cancelled, and the others keep their turns', async () => {
    const own = openThreads({ maxThreads: 1 });
    const { respond } = await serveTasks();
    const counts = cells(3);
    const count = workTask(own, 'countRunning');
    const handles = await Promise.all([1, 2, 3].map(() => respond((tasks) => tasks.add(count, counts, 200))));
    while (handles.some(({ status }) => status !== 'running')) await sleep(1);
    handles[1]?.cancel();
    expect(await handles[1]?.finished).toEqual({ status: 'cancelled' });
    expect([handles[0]?.status, handles[2]?.status]).toEqual(['running', 'running']);
    expect(await handles[2]?.finished).toMatchObject({ status: 'succeeded' });
    expect([...counts]).toEqual([0, 1, 2]);
  });

  it('does not begin for a task that was cancelled before', async () => {
    const own = openThreads({ maxThreads: 1 });
    const { respond } = await serveTasks();
    const other = workTask(own, 'computeFor')(1000).then(() => 'the thread is free');
    const sum = workTask(own, 'default');
    const handles: TaskHandle[] = [];
    const first = new Promise((resolve) => {
      void respond((tasks) => {
        const cancelItself = async (): Promise<void> => {
          handles[0]?.cancel();
          await sum(1).catch((error: Error) => resolve(error.name));
        };
        handles.push(tasks.add(cancelItself));
      });
    });
    expect(await Promise.race([first, other])).toBe('AbortError');
    await other;
  });

  it('ends at once while the thread starts, too', async () => {
    const slow = openThreads({
      execArgv: ['--require', require.resolve('./fixtures/slow-start.cjs')],
    });
    const { respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add(workTask(slow, 'countForever'), cells()));
    while (handle.status !== 'running') await sleep(1);
    handle.cancel();
    expect(await handle.finished).toEqual({ status: 'cancelled' });
  });
});

describe('many tasks', () => {
  it('run at the same time, in as many threads as there may be', async () => {
    const shared = cells();
    const meet = workTask(pool, 'meet');
    const [one, two] = await Promise.all([meet(shared), meet(shared)]);
    expect(one).not.toBe(two);
    const counts = cells(3);
    const count = workTask(pool, 'countRunning');
    await Promise.all(Array.from({ length: 20 }, () => count(counts, 5)));
    const [running, most, all] = counts;
    expect({ running, all }).toEqual({ running: 0, all: 20 });
    expect(most).toBeLessThanOrEqual(2);
  });

  it('have their turns in their order', async () => {
    const own = openThreads({ maxThreads: 1 });
    const order: number[] = [];
    const echo = workTask(own, 'echo');
    await Promise.all([1, 2, 3, 4].map(async (number) => order.push((await echo(number)) as number)));
    expect(order).toEqual([1, 2, 3, 4]);
  });

  it('each have their own result and their own signal', async () => {
    const { middleware, respond } = await serveTasks();
    const echo = workTask(pool, 'echoLater');
    const handles = await Promise.all(
      Array.from({ length: 50 }, (_, number) => respond((tasks) => tasks.add(echo, { number }, number % 7))),
    );
    await middleware.idle();
    const outcomes = await Promise.all(handles.map(({ finished }) => finished));
    expect(outcomes).toEqual(handles.map((_, number) => ({ status: 'succeeded', value: { number } })));
  });
});
