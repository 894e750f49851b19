// Promise 10: the time limit of an attempt, its signal, and what is ignored after it.

import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { currentTask, type TaskHandle, type TaskOutcome, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const never = (): Promise<void> => new Promise(() => {});

/** For tasks that outlive their attempt: calls back with the signal, then waits for the promise. */
function waitFor<T>(promise: Promise<T>, onBegin: (signal: AbortSignal | undefined) => void = () => {}) {
  return (): Promise<T> => {
    onBegin(currentTask()?.signal);
    return promise;
  };
}

function block(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

function spyOnAbortController() {
  const { AbortController } = globalThis;
  return jest.spyOn(globalThis, 'AbortController').mockImplementation(() => new AbortController());
}

describe('promise 10: timeout', () => {
  it('fails the attempt with ERR_TASK_TIMEOUT, and the list goes on', async () => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 5 });
    const next = jest.fn();
    const handle = await respond((tasks) => {
      const slow = tasks.add(task('slow', never));
      tasks.add(next);
      return slow;
    });
    const outcome = await handle.finished;
    await middleware.idle();

    expect(outcome).toEqual({
      status: 'failed',
      error: expect.objectContaining({ code: 'ERR_TASK_TIMEOUT', message: 'task "slow" did not end within 5 ms' }),
    });
    expect(reports).toEqual([
      {
        error: outcome.status === 'failed' ? outcome.error : undefined,
        task: { id: handle.id, name: 'slow', attempt: 1 },
      },
    ]);
    expect(next).toHaveBeenCalledTimes(1);
    expect(middleware.stats).toEqual({
      pending: 0,
      running: 0,
      succeeded: 1,
      failed: 1,
      skipped: 0,
      cancelled: 0,
      abandoned: 0,
    });
  });

  it('aborts the signal with a TimeoutError', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 5 });
    const aborted = deferred<unknown>();
    let wasAborted: boolean | undefined;
    await respond((tasks) =>
      tasks.add(
        waitFor(never(), (signal) => {
          wasAborted = signal?.aborted;
          signal?.addEventListener('abort', () => aborted.resolve(signal.reason));
        }),
      ),
    );
    const reason = await aborted.promise;
    expect(wasAborted).toBe(false);
    expect(reason).toBeInstanceOf(DOMException);
    expect(reason).toMatchObject({ name: 'TimeoutError', message: 'The task did not end within 5 ms' });
    await middleware.idle();
  });

  it('has aborted a signal that is read only after it', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 5 });
    const released = deferred();
    const signal = deferred<AbortSignal | undefined>();
    await respond((tasks) =>
      tasks.add(async () => {
        await released.promise;
        signal.resolve(currentTask()?.signal);
      }),
    );
    await middleware.idle();
    released.resolve();
    expect(await signal.promise).toMatchObject({ aborted: true, reason: { name: 'TimeoutError' } });
  });

  it('reports its own error once when the task rejects with the reason of the signal', async () => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 5 });
    await respond((tasks) => tasks.add(() => sleep(60_000, undefined, { signal: currentTask()?.signal })));
    await middleware.idle();
    await setImmediate();
    expect(reports).toHaveLength(1);
    expect(reports[0]?.error).toMatchObject({ code: 'ERR_TASK_TIMEOUT' });
    expect(middleware.stats.failed).toBe(1);
  });

  describe('ignores what the task does later', () => {
    const late: [title: string, fn: (released: Promise<void>) => unknown][] = [
      ['it resolves', (released) => released],
      [
        'it rejects',
        async (released) => {
          await released;
          throw new Error('late');
        },
      ],
      [
        'its thenable throws',
        (released) => ({
          // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
          then(resolve: () => void) {
            void released.then(resolve);
            return never();
          },
        }),
      ],
      [
        'it rejects with undefined',
        async (released) => {
          await released;
          return Promise.reject();
        },
      ],
    ];
    it.each(late)('when %s', async (_title, fn) => {
      const { middleware, reports, respond } = await serveTasks({ timeout: 5 });
      const released = deferred();
      const handle = await respond((tasks) => tasks.add(() => fn(released.promise)));
      const outcome = await handle.finished;
      await middleware.idle();
      const { stats } = middleware;

      released.resolve();
      await sleep(1); // A rejection that nobody handles would fail this test.
      expect(handle.status).toBe('failed');
      expect(await handle.finished).toBe(outcome);
      expect(reports).toHaveLength(1);
      expect(middleware.stats).toEqual(stats);
    });
  });

  it('ends a thenable that never settles', async () => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 5 });
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    await respond((tasks) => tasks.add(() => ({ then() {} })));
    await middleware.idle();
    expect(reports[0]?.error).toMatchObject({ code: 'ERR_TASK_TIMEOUT' });
  });

  it('counts from the start of each task', async () => {
    fakeTimeouts();
    const { respond } = await serveTasks({ timeout: 100 });
    const begun = [deferred(), deferred()] as const;
    const first = deferred();
    const [a, b] = await respond((tasks) => [
      tasks.add(waitFor(first.promise, () => begun[0].resolve())),
      tasks.add(waitFor(never(), () => begun[1].resolve())),
    ]);
    await begun[0].promise;
    jest.advanceTimersByTime(99);
    expect(a?.status).toBe('running');
    first.resolve();
    await begun[1].promise;
    expect(a?.status).toBe('succeeded');
    jest.advanceTimersByTime(99);
    expect(b?.status).toBe('running');
    jest.advanceTimersByTime(1);
    expect(b?.status).toBe('failed');
  });

  it('leaves the signal alone once the task has ended in time', async () => {
    fakeTimeouts();
    const { middleware, respond } = await serveTasks({ timeout: 100 });
    let signal: AbortSignal | undefined;
    await respond((tasks) =>
      tasks.add(
        waitFor(Promise.resolve(), (given) => {
          signal = given;
        }),
      ),
    );
    await middleware.idle();
    expect(jest.getTimerCount()).toBe(0);
    jest.advanceTimersByTime(1000);
    expect(signal?.aborted).toBe(false);
    expect(middleware.stats.succeeded).toBe(1);
  });

  describe('of a task itself', () => {
    it('stands over the one of the middleware', async () => {
      fakeTimeouts();
      const { respond } = await serveTasks({ timeout: 100 });
      const begun = [deferred(), deferred()] as const;
      const [shorter, longer] = await respond((tasks) => [
        tasks.add(
          task(
            'shorter',
            waitFor(never(), () => begun[0].resolve()),
            { timeout: 50 },
          ),
        ),
        tasks.add(
          task(
            'longer',
            waitFor(never(), () => begun[1].resolve()),
            { timeout: 200 },
          ),
        ),
      ]);
      await begun[0].promise;
      jest.advanceTimersByTime(50);
      expect(shorter?.status).toBe('failed');
      await begun[1].promise;
      jest.advanceTimersByTime(199);
      expect(longer?.status).toBe('running');
      jest.advanceTimersByTime(1);
      expect(longer?.status).toBe('failed');
    });

    it('may be Infinity: then there is none', async () => {
      const { middleware, respond } = await serveTasks({ timeout: 1 });
      const handle = await respond((tasks) => tasks.add(task('patient', () => sleep(20), { timeout: Infinity })));
      await middleware.idle();
      expect(handle.status).toBe('succeeded');
    });

    it('holds without one of the middleware', async () => {
      const { middleware, respond } = await serveTasks();
      const handle = await respond((tasks) => tasks.add(task('limited', never, { timeout: 1 })));
      await middleware.idle();
      expect(handle.status).toBe('failed');
    });
  });

  describe('of a synchronous task', () => {
    it('lets it succeed', async () => {
      const { middleware, respond } = await serveTasks({ timeout: 1000 });
      const handle = await respond((tasks) => tasks.add(() => 'value'));
      expect(await handle.finished).toEqual({ status: 'succeeded', value: 'value' });
      await middleware.idle();
    });

    it('reports what it throws', async () => {
      const { middleware, reports, respond } = await serveTasks({ timeout: 1000 });
      const error = new Error('thrown');
      await respond((tasks) =>
        tasks.add(() => {
          throw error;
        }),
      );
      await middleware.idle();
      expect(reports.map((report) => report.error)).toEqual([error]);
    });

    it('cannot interrupt it: it has ended by the time that the timer could fire', async () => {
      const { middleware, respond } = await serveTasks({ timeout: 1 });
      const handle = await respond((tasks) => tasks.add(block, 10));
      await middleware.idle();
      await sleep(5);
      expect(handle.status).toBe('succeeded');
    });

    it('counts the synchronous part of an asynchronous one', async () => {
      const { middleware, respond } = await serveTasks({ timeout: 5 });
      const handle = await respond((tasks) =>
        tasks.add(async () => {
          block(20);
          await sleep(1000);
        }),
      );
      await middleware.idle();
      expect(handle.status).toBe('failed');
    });
  });

  it('ends a task that is cancelled by its abort as cancelled', async () => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 5 });
    const handles: TaskHandle[] = [];
    await respond((tasks) => {
      handles.push(
        tasks.add(
          waitFor(never(), (signal) => {
            signal?.addEventListener('abort', () => handles[0]?.cancel());
          }),
        ),
      );
    });
    await middleware.idle();
    expect(handles[0]?.status).toBe('cancelled');
    expect(reports).toEqual([]);
  });

  it('leaves no timer behind, however the task ends', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 60_000 });
    const countTimeouts = trackTimeouts();
    const released = deferred();
    const handles: TaskHandle[] = [];
    await respond((tasks) => {
      tasks.add(() => {});
      tasks.add(() => {
        throw new Error('thrown');
      });
      tasks.add(async () => setImmediate());
      tasks.add(async () => {
        await setImmediate();
        throw new Error('rejected');
      });
      tasks.add(task('timed out', never, { timeout: 1 }));
      handles.push(
        tasks.add(() => {
          handles[0]?.cancel();
          return Promise.reject(currentTask()?.signal.reason);
        }),
      );
      tasks.add(waitFor(never(), () => released.resolve()));
    });
    await released.promise;
    expect(countTimeouts()).toBe(1);
    await middleware.close({ timeout: 0 });
    expect(countTimeouts()).toBe(0);
    expect(middleware.stats).toMatchObject({ succeeded: 2, failed: 3, cancelled: 1, abandoned: 1 });
  });

  describe('costs nothing when it is not used', () => {
    it('starts no timer and makes no AbortController', async () => {
      const setTimeouts = jest.spyOn(globalThis, 'setTimeout');
      const controllers = spyOnAbortController();
      const { middleware, respond } = await serveTasks();
      await respond((tasks) => {
        tasks.add(() => currentTask()?.id);
        tasks.add(async () => setImmediate(currentTask()?.attempt));
        tasks.add(() => Promise.reject(new Error('rejected')));
        tasks.add(() => {}).cancel();
      });
      await middleware.idle();
      expect(setTimeouts).not.toHaveBeenCalled();
      expect(controllers).not.toHaveBeenCalled();
    });

    it('makes one AbortController when the signal is read, and none for a timeout alone', async () => {
      const controllers = spyOnAbortController();
      const { middleware, respond } = await serveTasks({ timeout: 1 });
      await respond((tasks) => tasks.add(never));
      await middleware.idle();
      expect(controllers).not.toHaveBeenCalled();

      const handle = await respond((tasks) =>
        tasks.add(() => {
          const signal = currentTask()?.signal;
          return signal !== undefined && signal === currentTask()?.signal;
        }),
      );
      expect(await handle.finished).toEqual({ status: 'succeeded', value: true });
      expect(controllers).toHaveBeenCalledTimes(1);
    });
  });
});

describe('an attempt', () => {
  const results: [title: string, fn: () => unknown, outcome: TaskOutcome][] = [
    ['a value', () => 1, { status: 'succeeded', value: 1 }],
    ['nothing', () => {}, { status: 'succeeded', value: undefined }],
    ['null', () => null, { status: 'succeeded', value: null }],
    ['a promise', async () => 'later', { status: 'succeeded', value: 'later' }],
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    ['a thenable', () => ({ then: (f: (v: string) => void) => f('then') }), { status: 'succeeded', value: 'then' }],
    ['a plain object', () => ({ a: 1 }), { status: 'succeeded', value: { a: 1 } }],
    ['a rejection', () => Promise.reject(0), { status: 'failed', error: 0 }],
  ];
  it.each(results)('gives %s to the handle', async (_title, fn, outcome) => {
    const { middleware, respond } = await serveTasks();
    const [early, late] = await respond((tasks) => {
      const handle = tasks.add(fn);
      return [handle.finished, handle] as const;
    });
    expect(await early).toEqual(outcome);
    await middleware.idle();
    expect(await late.finished).toEqual(outcome);
    expect(late.status).toBe(outcome.status);
  });
});
