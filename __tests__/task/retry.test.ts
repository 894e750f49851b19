// Promise 11: attempts after a failed one, the backoff between them, and cancelling.

import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { type BackgroundTasksOptions, currentTask, type TaskHandle, task } from '../../lib/index';
import { type Backoff, retryDelay } from '../../lib/task/retry';
import { deferred } from '../fixtures/deferred';
import { type ServedTasks, serveTasks } from '../fixtures/serve-tasks';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const never = (): Promise<void> => new Promise(() => {});
const backoff: Backoff = { limit: 5, minDelay: 100, maxDelay: 1000, factor: 2, jitter: false };

/** Fails in its first attempts, and tells of each attempt. */
function failing(times: number, onAttempt: (attempt: number) => void = () => {}) {
  return async (): Promise<string> => {
    const attempt = currentTask()?.attempt ?? 0;
    onAttempt(attempt);
    if (attempt <= times) throw new Error(`attempt ${attempt}`);
    return `attempt ${attempt}`;
  };
}

/** Waits until the task is between two attempts. */
async function untilBackoff(attempts: jest.Mock, count: number): Promise<void> {
  while (attempts.mock.calls.length < count) await setImmediate();
  await setImmediate();
}

describe('retryDelay', () => {
  it('grows by the factor', () => {
    const delays = [1, 2, 3, 4].map((retry) => retryDelay(retry, { ...backoff, factor: 2 }));
    expect(delays).toEqual([100, 200, 400, 800]);
    expect([1, 2, 3].map((retry) => retryDelay(retry, { ...backoff, factor: 3 }))).toEqual([100, 300, 900]);
    expect([1, 2, 3].map((retry) => retryDelay(retry, { ...backoff, factor: 1 }))).toEqual([100, 100, 100]);
  });

  it('does not exceed maxDelay', () => {
    expect([4, 5, 6, 10_000].map((retry) => retryDelay(retry, backoff))).toEqual([800, 1000, 1000, 1000]);
  });

  it('is 0 for a minDelay of 0, however many retries there were', () => {
    expect([1, 2, 10_000].map((retry) => retryDelay(retry, { ...backoff, minDelay: 0 }))).toEqual([0, 0, 0]);
    expect(retryDelay(10_000, { ...backoff, minDelay: 0, jitter: true })).toBe(0);
  });

  it('is between half and all of its value with jitter', () => {
    const random = jest.spyOn(Math, 'random');
    const jittered = { ...backoff, jitter: true };
    random.mockReturnValue(0);
    expect([1, 2, 9].map((retry) => retryDelay(retry, jittered))).toEqual([50, 100, 500]);
    random.mockReturnValue(0.5);
    expect([1, 2, 9].map((retry) => retryDelay(retry, jittered))).toEqual([75, 150, 750]);
    random.mockReturnValue(1 - Number.EPSILON);
    expect(retryDelay(1, jittered)).toBeGreaterThan(99.99);
    expect(retryDelay(9, jittered)).toBeLessThanOrEqual(1000);
    random.mockRestore();
    const drawn = Array.from({ length: 200 }, () => retryDelay(2, jittered));
    expect(Math.min(...drawn)).toBeGreaterThanOrEqual(100);
    expect(Math.max(...drawn)).toBeLessThanOrEqual(200);
    expect(new Set(drawn).size).toBeGreaterThan(100);
  });
});

/** The delays that the retries of a task waited for, without waiting. */
async function delaysOf(retries: BackgroundTasksOptions['retries']): Promise<number[]> {
  const delays: number[] = [];
  const { setTimeout } = globalThis;
  const { middleware, respond } = await serveTasks({ retries });
  const spy = jest.spyOn(globalThis, 'setTimeout').mockImplementation((callback, delay) => {
    delays.push(delay ?? Number.NaN);
    return setTimeout(callback, 0);
  });
  await respond((tasks) => tasks.add(failing(Number.POSITIVE_INFINITY)));
  await middleware.idle();
  spy.mockRestore();
  return delays;
}

describe('promise 11: retries', () => {
  it('tries a failed task again after each delay', async () => {
    fakeTimeouts();
    const { respond } = await serveTasks({
      retries: { limit: 4, minDelay: 100, factor: 3, maxDelay: 500, jitter: false },
    });
    const attempts = jest.fn();
    const handle = await respond((tasks) => tasks.add(failing(4, attempts)));
    for (const [index, delay] of [100, 300, 500, 500].entries()) {
      await untilBackoff(attempts, index + 1);
      jest.advanceTimersByTime(delay - 1);
      await setImmediate();
      expect(attempts).toHaveBeenCalledTimes(index + 1);
      expect(handle.status).toBe('running');
      jest.advanceTimersByTime(1);
    }
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'attempt 5' });
    expect(attempts.mock.calls).toEqual([[1], [2], [3], [4], [5]]);
  });

  it('has the defaults minDelay 1000, maxDelay 30000, factor 2', async () => {
    const expected = [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000];
    expect(await delaysOf({ limit: 7, jitter: false })).toEqual(expected);
  });

  it('jitters by default, also when only a number is given', async () => {
    jest.spyOn(Math, 'random').mockReturnValue(0);
    expect(await delaysOf(7)).toEqual([500, 1000, 2000, 4000, 8000, 15_000, 15_000]);
    expect(await delaysOf({ limit: 2 })).toEqual([500, 1000]);
  });

  it.each([0, { limit: 0 }, undefined])('makes one attempt with %j', async (retries) => {
    expect(await delaysOf(retries)).toEqual([]);
  });

  it('retries what is thrown as well as what is rejected', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const attempts = jest.fn();
    const handle = await respond((tasks) =>
      tasks.add(() => {
        attempts();
        if (attempts.mock.calls.length === 1) throw new Error('thrown');
        return 'synchronous';
      }),
    );
    await middleware.idle();
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'synchronous' });
    expect(attempts).toHaveBeenCalledTimes(2);
  });

  it('reports the last failure only, with the number of its attempt', async () => {
    const { middleware, reports, respond } = await serveTasks({ retries: { limit: 2, minDelay: 1 } });
    const handle = await respond((tasks) => tasks.add(failing(Number.POSITIVE_INFINITY)));
    await middleware.idle();
    const error = new Error('attempt 3');
    expect(reports).toEqual([{ error, task: { id: handle.id, name: handle.name, attempt: 3 } }]);
    expect(await handle.finished).toEqual({ status: 'failed', error });
    expect(middleware.stats).toMatchObject({ succeeded: 0, failed: 1 });
  });

  it('reports nothing of a task that succeeds in the end', async () => {
    const { middleware, reports, respond } = await serveTasks({ retries: { limit: 2, minDelay: 1 } });
    await respond((tasks) => tasks.add(failing(2)));
    await middleware.idle();
    expect(reports).toEqual([]);
    expect(middleware.stats).toMatchObject({ succeeded: 1, failed: 0 });
  });

  it('lets the list wait', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 2, minDelay: 5 } });
    const events: string[] = [];
    await respond((tasks) => {
      tasks.add(failing(2, (attempt) => events.push(`first ${attempt}`)));
      tasks.add(() => events.push('second'));
      tasks.add(failing(1, (attempt) => events.push(`third ${attempt}`)));
      tasks.add(() => events.push('fourth'));
    });
    await middleware.idle();
    expect(events).toEqual(['first 1', 'first 2', 'first 3', 'second', 'third 1', 'third 2', 'fourth']);
  });

  it('calls the function with the same arguments each time', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 2, minDelay: 1 } });
    const fn = jest.fn(async (..._args: unknown[]) => {
      throw new Error('again');
    });
    const args = [{}, [], 'a'];
    await respond((tasks) => tasks.add(fn, ...args));
    await middleware.idle();
    expect(fn.mock.calls).toHaveLength(3);
    for (const call of fn.mock.calls) {
      expect(call).toHaveLength(3);
      call.forEach((value, index) => {
        expect(value).toBe(args[index]);
      });
    }
  });

  it('lets the late code of an attempt see its own number', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 5, retries: { limit: 1, minDelay: 1 } });
    const released = deferred();
    const late = deferred<unknown>();
    const handle = await respond((tasks) =>
      tasks.add(async () => {
        if (currentTask()?.attempt === 2) return 'second';
        const before = currentTask();
        await released.promise;
        const { id, attempt, signal } = currentTask() ?? {};
        late.resolve([currentTask() === before, id, attempt, signal?.reason.name]);
        throw new Error('late');
      }),
    );
    await middleware.idle();
    released.resolve();
    expect(await late.promise).toEqual([true, handle.id, 1, 'TimeoutError']);
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'second' });
  });

  it('retries attempts that timed out', async () => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 5, retries: { limit: 2, minDelay: 1 } });
    const signals: (AbortSignal | undefined)[] = [];
    await respond((tasks) =>
      tasks.add(() => {
        signals.push(currentTask()?.signal);
        return never();
      }),
    );
    await middleware.idle();
    expect(signals.map((signal) => signal?.reason.name)).toEqual(Array(3).fill('TimeoutError'));
    expect(new Set(signals).size).toBe(3);
    expect(reports).toMatchObject([{ error: { code: 'ERR_TASK_TIMEOUT' }, task: { attempt: 3 } }]);
  });

  it('does not take the late end of one attempt for the end of the next', async () => {
    fakeTimeouts();
    const { middleware, respond } = await serveTasks({
      timeout: 100,
      retries: { limit: 1, minDelay: 50, jitter: false },
    });
    const begun = [deferred(), deferred()] as const;
    const ends = [deferred<string>(), deferred<string>()] as const;
    const handle = await respond((tasks) =>
      tasks.add(() => {
        const index = currentTask()?.attempt === 1 ? 0 : 1;
        begun[index].resolve();
        return ends[index].promise;
      }),
    );
    await begun[0].promise;
    jest.advanceTimersByTime(100);
    jest.advanceTimersByTime(50);
    await begun[1].promise;
    ends[0].resolve('first');
    await setImmediate();
    expect(handle.status).toBe('running');
    ends[1].resolve('second');
    await middleware.idle();
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'second' });
  });

  it('skips the rest only after the last failure, with stopOnError', async () => {
    const { middleware, respond } = await serveTasks({ stopOnError: true, retries: { limit: 1, minDelay: 1 } });
    const handles = await respond((tasks) => {
      const added = [failing(1), failing(2), () => {}, () => {}].map((fn) => tasks.add(fn));
      added[3]?.cancel();
      return added;
    });
    await middleware.idle();
    expect(handles.map(({ status }) => status)).toEqual(['succeeded', 'failed', 'skipped', 'cancelled']);
    expect(middleware.stats).toMatchObject({ pending: 0, succeeded: 1, failed: 1, skipped: 1, cancelled: 1 });
  });

  describe('of a task itself', () => {
    it('stand over those of the middleware', async () => {
      const { middleware, respond } = await serveTasks({ retries: { limit: 3, minDelay: 1 } });
      const attempts = { none: jest.fn(), one: jest.fn(), inherited: jest.fn() };
      await respond((tasks) => {
        tasks.add(task('none', failing(9, attempts.none), { retries: 0 }));
        tasks.add(task('one', failing(9, attempts.one), { retries: { limit: 1, minDelay: 1 } }));
        tasks.add(task('inherited', failing(9, attempts.inherited), { timeout: 1000 }));
      });
      await middleware.idle();
      expect(attempts.none).toHaveBeenCalledTimes(1);
      expect(attempts.one).toHaveBeenCalledTimes(2);
      expect(attempts.inherited).toHaveBeenCalledTimes(4);
    });
  });

  it('leaves no timer behind', async () => {
    const countTimeouts = trackTimeouts();
    const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const attempts = jest.fn();
    const [, , handle] = await respond((tasks) => [
      tasks.add(failing(1)),
      tasks.add(failing(2)),
      tasks.add(task('slow', failing(1, attempts), { retries: { limit: 1, minDelay: 60_000 } })),
    ]);
    await untilBackoff(attempts, 1);
    expect(countTimeouts()).toBe(1);
    handle?.cancel();
    expect(countTimeouts()).toBe(0);
    await middleware.idle();
  });
});

describe('promise 11: cancel', () => {
  describe('during the backoff', () => {
    async function backingOff(): Promise<ServedTasks & { handle: TaskHandle; attempts: jest.Mock; next: jest.Mock }> {
      const served = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
      const attempts = jest.fn();
      const next = jest.fn();
      const handle = await served.respond((tasks) => {
        const first = tasks.add(failing(1, attempts));
        tasks.add(next);
        return first;
      });
      await untilBackoff(attempts, 1);
      return { ...served, handle, attempts, next };
    }

    it('ends the task at once as cancelled, unreported, and the list goes on', async () => {
      const { middleware, reports, handle, attempts, next } = await backingOff();
      expect(handle.status).toBe('running');
      expect(middleware.stats).toMatchObject({ pending: 1, running: 1 });
      expect(handle.cancel()).toBe(false);
      expect(await handle.finished).toEqual({ status: 'cancelled' });
      await middleware.idle();
      expect(attempts).toHaveBeenCalledTimes(1);
      expect(next).toHaveBeenCalledTimes(1);
      expect(reports).toEqual([]);
      expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 1, failed: 0, cancelled: 1 });
    });

    it('does so once, however often it is called', async () => {
      const { middleware, handle, next } = await backingOff();
      expect([handle.cancel(), handle.cancel()]).toEqual([false, false]);
      await handle.finished;
      expect(handle.cancel()).toBe(false);
      await middleware.idle();
      expect(next).toHaveBeenCalledTimes(1);
      expect(middleware.stats).toMatchObject({ succeeded: 1, cancelled: 1 });
    });

    it('aborts the signal of the attempt before', async () => {
      const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
      const attempts = jest.fn();
      let signal: AbortSignal | undefined;
      const handle = await respond((tasks) =>
        tasks.add(
          failing(1, (attempt) => {
            signal = currentTask()?.signal;
            attempts(attempt);
          }),
        ),
      );
      await untilBackoff(attempts, 1);
      handle.cancel();
      await middleware.idle();
      expect(signal?.reason).toMatchObject({ name: 'AbortError' });
    });

    it('makes no further attempt when the backoff has just ended', async () => {
      fakeTimeouts();
      const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 100, jitter: false } });
      const attempts = jest.fn();
      const handle = await respond((tasks) => tasks.add(failing(1, attempts)));
      await untilBackoff(attempts, 1);
      jest.advanceTimersByTime(100);
      handle.cancel();
      await middleware.idle();
      expect(handle.status).toBe('cancelled');
      expect(attempts).toHaveBeenCalledTimes(1);
    });
  });

  describe('while the task runs', () => {
    const ends: [title: string, end: (signal: AbortSignal) => unknown, status: string][] = [
      ['rejects with the reason', (signal) => Promise.reject(signal.reason), 'cancelled'],
      ['rejects with anything', () => Promise.reject(new Error('anything')), 'cancelled'],
      ['resolves', async () => 'done', 'succeeded'],
    ];
    it.each(ends)('aborts its signal; one that %s', async (_title, end, status) => {
      const { middleware, reports, respond } = await serveTasks({ retries: { limit: 3, minDelay: 1 } });
      const begun = deferred();
      const attempts = jest.fn();
      const next = jest.fn();
      const handle = await respond((tasks) => {
        const first = tasks.add(async () => {
          attempts();
          const { signal } = currentTask() ?? {};
          if (signal === undefined) throw new Error('no signal');
          await new Promise((resolve) => {
            signal.addEventListener('abort', resolve);
            begun.resolve();
          });
          return end(signal);
        });
        tasks.add(next);
        return first;
      });
      await begun.promise;
      expect(handle.cancel()).toBe(false);
      expect(handle.status).toBe('running');
      await middleware.idle();
      expect(handle.status).toBe(status);
      expect(await handle.finished).toEqual(status === 'succeeded' ? { status, value: 'done' } : { status });
      expect(attempts).toHaveBeenCalledTimes(1);
      expect(next).toHaveBeenCalledTimes(1);
      expect(reports).toEqual([]);
      expect(middleware.stats).toMatchObject({
        succeeded: status === 'succeeded' ? 2 : 1,
        cancelled: status === 'succeeded' ? 0 : 1,
        failed: 0,
      });
    });

    it('aborts with an AbortError, also a signal that is read later', async () => {
      const { middleware, respond } = await serveTasks();
      const begun = deferred();
      const cancelled = deferred();
      const handle = await respond((tasks) =>
        tasks.add(async () => {
          begun.resolve();
          await cancelled.promise;
          return currentTask()?.signal.reason;
        }),
      );
      await begun.promise;
      handle.cancel();
      cancelled.resolve();
      await middleware.idle();
      const outcome = await handle.finished;
      expect(outcome).toMatchObject({ value: { name: 'AbortError', message: 'The task was cancelled' } });
    });

    it('keeps the first reason: a timeout after it ends the task as cancelled', async () => {
      fakeTimeouts();
      const { middleware, reports, respond } = await serveTasks({ timeout: 100, retries: { limit: 1, minDelay: 1 } });
      const begun = deferred<AbortSignal | undefined>();
      const handle = await respond((tasks) =>
        tasks.add(() => {
          begun.resolve(currentTask()?.signal);
          return never();
        }),
      );
      const signal = await begun.promise;
      handle.cancel();
      handle.cancel();
      jest.advanceTimersByTime(100);
      await middleware.idle();
      expect(signal?.reason.name).toBe('AbortError');
      expect(handle.status).toBe('cancelled');
      expect(reports).toEqual([]);
    });

    it('keeps the first reason also for a signal that is read only after both', async () => {
      fakeTimeouts();
      const { middleware, respond } = await serveTasks({ timeout: 100 });
      const begun = deferred();
      const released = deferred();
      const reason = deferred<unknown>();
      const handle = await respond((tasks) =>
        tasks.add(async () => {
          begun.resolve();
          await released.promise;
          reason.resolve(currentTask()?.signal.reason);
        }),
      );
      await begun.promise;
      handle.cancel();
      jest.advanceTimersByTime(100);
      await middleware.idle();
      released.resolve();
      expect(await reason.promise).toMatchObject({ name: 'AbortError' });
    });

    it('concerns that task alone: the next one is retried and reported', async () => {
      const { middleware, reports, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
      const handles: TaskHandle[] = [];
      await respond((tasks) =>
        handles.push(
          tasks.add(() => {
            handles[0]?.cancel();
            throw new Error('cancelled');
          }),
          tasks.add(failing(1)),
          tasks.add(failing(2)),
        ),
      );
      await middleware.idle();
      expect(handles.map(({ status }) => status)).toEqual(['cancelled', 'succeeded', 'failed']);
      expect(reports).toEqual([{ error: new Error('attempt 2'), task: expect.objectContaining({ attempt: 2 }) }]);
    });

    it('lets a synchronous task cancel itself', async () => {
      const { middleware, reports, respond } = await serveTasks({ retries: { limit: 3, minDelay: 1 } });
      const handles: TaskHandle[] = [];
      const returned: unknown[] = [];
      await respond((tasks) => {
        handles.push(
          tasks.add(() => {
            returned.push(handles[0]?.cancel(), currentTask()?.signal.aborted);
            throw new Error('thrown');
          }),
          tasks.add(() => {
            returned.push(handles[1]?.cancel());
            return 'done';
          }),
        );
      });
      await middleware.idle();
      expect(returned).toEqual([false, true, false]);
      expect(handles.map(({ status }) => status)).toEqual(['cancelled', 'succeeded']);
      expect(reports).toEqual([]);
    });
  });

  describe('before the task begins', () => {
    it('ends it at once: it never runs', async () => {
      const { middleware, reports, open } = await serveTasks();
      const fn = jest.fn();
      const next = jest.fn();
      const { added: handle, end } = await open((tasks) => {
        const first = tasks.add(fn);
        tasks.add(next);
        return first;
      });
      expect(middleware.stats).toMatchObject({ pending: 2 });
      expect(handle.cancel()).toBe(true);
      expect(handle.status).toBe('cancelled');
      expect(await handle.finished).toEqual({ status: 'cancelled' });
      expect(middleware.stats).toMatchObject({ pending: 1, cancelled: 1 });
      expect(handle.cancel()).toBe(false);
      await end();
      await middleware.idle();
      expect(fn).not.toHaveBeenCalled();
      expect(next).toHaveBeenCalledTimes(1);
      expect(reports).toEqual([]);
      expect(middleware.stats).toMatchObject({ succeeded: 1, cancelled: 1 });
    });

    it('holds in a "when" that is asked about it', async () => {
      const handles: TaskHandle[] = [];
      const answers = [
        () => true,
        () => false,
        () => {
          throw new Error('when');
        },
      ];
      const { middleware, reports, respond } = await serveTasks();
      const fn = jest.fn();
      await respond((tasks) => {
        for (const [index, answer] of answers.entries()) {
          const when = (): boolean => {
            expect(handles[index]?.cancel()).toBe(true);
            return answer();
          };
          handles.push(tasks.add(task('asked about', fn, { when })));
        }
      });
      await middleware.idle();
      expect(handles.map(({ status }) => status)).toEqual(['cancelled', 'cancelled', 'cancelled']);
      expect(fn).not.toHaveBeenCalled();
      expect(middleware.stats).toEqual({
        pending: 0,
        running: 0,
        succeeded: 0,
        failed: 0,
        skipped: 0,
        cancelled: 3,
        abandoned: 0,
      });
      expect(reports).toEqual([]);
    });
  });

  it('does nothing to a task that is over', async () => {
    const { middleware, reports, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const [succeeded, failed] = await respond((tasks) => [tasks.add(failing(0)), tasks.add(failing(2))]);
    await middleware.idle();
    await sleep(1);
    expect([succeeded?.cancel(), failed?.cancel()]).toEqual([false, false]);
    expect([succeeded?.status, failed?.status]).toEqual(['succeeded', 'failed']);
    expect(reports).toHaveLength(1);
    expect(middleware.stats).toMatchObject({ succeeded: 1, failed: 1, cancelled: 0 });
  });
});
