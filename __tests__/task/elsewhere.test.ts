// A task whose function hands its attempts over, as those in threads do: its time counts from the begin, and an attempt ends when
// what took it says so.

import { setImmediate } from 'node:timers/promises';
import { currentTask } from '../../lib/index';
import { Attempt } from '../../lib/task/attempt';
import { taskElsewhere } from '../../lib/task/task';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

/** Adds a task that is handed over, and waits until it is. */
async function handOver({ timeout }: { timeout?: number } = {}) {
  const served = await serveTasks();
  const taken = deferred<Attempt>();
  const result = deferred<string>();
  const take = (): Promise<string> => {
    const attempt = currentTask();
    if (attempt instanceof Attempt) taken.resolve(attempt);
    return result.promise;
  };
  const task = taskElsewhere('task()', 'elsewhere', take, { timeout });
  fakeTimeouts();
  const waiting = trackTimeouts();
  const handle = await served.respond((tasks) => tasks.add(task));
  return { ...served, handle, result, waiting, attempt: await taken.promise };
}

describe('an attempt elsewhere', () => {
  it('has no time limit before it begins', async () => {
    const { handle, waiting, result } = await handOver({ timeout: 100 });
    expect(waiting()).toBe(0);
    result.resolve('done');
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'done' });
  });

  it.each(['resolves', 'rejects'])(
    'fails at its time limit once what took it has ended, also where that %s',
    async (how) => {
      const { handle, attempt, waiting, result } = await handOver({ timeout: 100 });
      attempt.onBegin?.();
      expect(waiting()).toBe(1);
      jest.advanceTimersByTime(100);
      expect(attempt.signal.reason).toMatchObject({
        name: 'TimeoutError',
        message: 'The task did not end within 100 ms',
      });
      await setImmediate();
      expect(handle.status).toBe('running');
      if (how === 'resolves') result.resolve('late');
      else result.reject(new Error('late'));
      expect(await handle.finished).toMatchObject({ status: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
    },
  );

  it('leaves no timer behind where it ends in time', async () => {
    const { handle, attempt, waiting, result } = await handOver({ timeout: 100 });
    attempt.onBegin?.();
    attempt.onBegin?.();
    expect(waiting()).toBe(1);
    result.resolve('done');
    await handle.finished;
    expect(waiting()).toBe(0);
  });

  it('that begins after it was given up has no time limit', async () => {
    const { handle, attempt, waiting, middleware } = await handOver({ timeout: 100 });
    const { onBegin } = attempt;
    const closing = middleware.close({ timeout: 1 });
    jest.advanceTimersByTime(1);
    await closing;
    expect(handle.status).toBe('abandoned');
    onBegin?.();
    expect(waiting()).toBe(0);
  });

  it('without a time limit has nothing to be told', async () => {
    const { attempt, result, handle } = await handOver();
    expect(attempt.onBegin).toBeUndefined();
    result.resolve('done');
    await handle.finished;
  });
});

it('an attempt that is not handed over has nothing to be told', async () => {
  const { respond } = await serveTasks({ timeout: 60_000 });
  const { finished } = await respond((tasks) => tasks.add(() => (currentTask() as Attempt).onBegin));
  expect(await finished).toEqual({ status: 'succeeded', value: undefined });
});

it('keeps its kind in a copy made by with()', async () => {
  const { respond } = await serveTasks();
  const take = async () => typeof (currentTask() as Attempt).onBegin;
  const task = taskElsewhere('task()', 'elsewhere', take, {}).with({ timeout: 60_000 });
  const { finished } = await respond((tasks) => tasks.add(task));
  expect(await finished).toEqual({ status: 'succeeded', value: 'function' });
});
