// Promise 13: close() lets tasks end, and gives up in an orderly way on those that do not.

import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { backgroundTasks, currentTask, type Task, type TaskHandle, type TaskInfo, task } from '../../lib/index';
import { type Deferred, deferred } from '../fixtures/deferred';
import { expresses, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const error = new Error('boom');
const never = (): Promise<void> => new Promise(() => {});
const abandonedError = expect.objectContaining({ name: 'BackgroundTasksError', code: 'ERR_TASK_ABANDONED' });
const closedError = expect.objectContaining({
  name: 'BackgroundTasksError',
  code: 'ERR_TASKS_CLOSED',
  status: 503,
  message: 'add(): no more tasks are accepted after close()',
});

/** A task that tells of its start and ends when the test wants it to. */
interface Gate {
  begun: Deferred<AbortSignal | undefined>;
  released: Deferred<unknown>;
  run(): Promise<unknown>;
}

function gate(): Gate {
  const begun = deferred<AbortSignal | undefined>();
  const released = deferred<unknown>();
  return {
    begun,
    released,
    run() {
      begun.resolve(currentTask()?.signal);
      return released.promise;
    },
  };
}

function infoOf(handle: TaskHandle | undefined, attempt: number): TaskInfo {
  return { id: handle?.id ?? '', name: handle?.name ?? '', attempt };
}

describe('promise 13: close() lets tasks end', () => {
  it('resolves at once when there are none, with an empty report', async () => {
    const { middleware, respond } = await serveTasks();
    expect(await middleware.close()).toEqual({ succeeded: 0, failed: 0, abandoned: [] });
    await expect(respond((tasks) => tasks.add(() => {}))).rejects.toEqual(closedError);
  });

  it('waits for running and pending tasks', async () => {
    const { middleware, reports, respond } = await serveTasks();
    const running = gate();
    const [first, second] = await respond((tasks) => [tasks.add(running.run), tasks.add(() => 'second')]);
    const signal = await running.begun.promise;
    let report: unknown;
    const closed = middleware.close().then((value) => {
      report = value;
    });
    await sleep(5);
    expect(report).toBeUndefined();
    expect([first?.status, second?.status]).toEqual(['running', 'pending']);
    running.released.resolve('first');
    await closed;
    expect(report).toEqual({ succeeded: 2, failed: 0, abandoned: [] });
    expect([first?.status, second?.status]).toEqual(['succeeded', 'succeeded']);
    expect(signal?.aborted).toBe(false);
    expect(reports).toEqual([]);
  });

  it('waits for tasks of responses that are still being sent', async () => {
    const { middleware, open } = await serveTasks();
    const { added: handle, end } = await open((tasks) => tasks.add(() => {}));
    const closed = middleware.close();
    await sleep(5);
    expect(handle.status).toBe('pending');
    await end();
    expect(await closed).toEqual({ succeeded: 1, failed: 0, abandoned: [] });
    expect(handle.status).toBe('succeeded');
  });

  it('waits for retries', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 2, minDelay: 5 } });
    const begun = deferred();
    await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        if (currentTask()?.attempt !== 3) throw error;
      }),
    );
    await begun.promise;
    expect(await middleware.close()).toEqual({ succeeded: 1, failed: 0, abandoned: [] });
  });

  it('waits for lists that wait for a slot', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 1 });
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    await respond((tasks) => tasks.add(() => {}));
    await respond((tasks) => tasks.add(() => {}));
    const closed = middleware.close();
    running.released.resolve(undefined);
    expect(await closed).toEqual({ succeeded: 3, failed: 0, abandoned: [] });
  });

  it('waits until onError has taken its reports', async () => {
    const reported = deferred();
    const { middleware, respond } = await serveTasks({ onError: () => reported.promise });
    const handle = await respond((tasks) => tasks.add(() => Promise.reject(error)));
    await handle.finished;
    let isClosed = false;
    const closed = middleware.close().then((report) => {
      isClosed = true;
      return report;
    });
    await sleep(5);
    expect(isClosed).toBe(false);
    reported.resolve();
    expect(await closed).toEqual({ succeeded: 0, failed: 0, abandoned: [] });
  });

  it('takes new tasks until it resolves', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    const events: string[] = [];
    await respond((tasks) =>
      tasks.add(async () => {
        await running.run();
        tasks.add(() => events.push('of a task'));
      }),
    );
    await running.begun.promise;
    const closed = middleware.close();
    await respond((tasks) => tasks.add(() => events.push('of a new request')));
    running.released.resolve(undefined);
    expect(await closed).toEqual({ succeeded: 3, failed: 0, abandoned: [] });
    expect(events.sort()).toEqual(['of a new request', 'of a task']);
  });

  it('counts from its call on', async () => {
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => {
      tasks.add(() => {});
      tasks.add(() => Promise.reject(error));
    });
    await middleware.idle();
    const running = gate();
    await respond((tasks) => {
      tasks.add(running.run);
      tasks.add(() => Promise.reject(error));
      tasks.add(() => Promise.reject(error));
      tasks.add(() => {}).cancel();
    });
    await running.begun.promise;
    const closed = middleware.close();
    running.released.resolve(undefined);
    expect(await closed).toEqual({ succeeded: 1, failed: 2, abandoned: [] });
    expect(middleware.stats).toMatchObject({ succeeded: 2, failed: 3, cancelled: 1, abandoned: 0 });
  });

  it('ends when the last task is cancelled', async () => {
    const { middleware, open } = await serveTasks();
    const { added: handle, end } = await open((tasks) => tasks.add(() => {}));
    const closed = middleware.close({ timeout: Number.POSITIVE_INFINITY });
    handle.cancel();
    expect(await closed).toEqual({ succeeded: 0, failed: 0, abandoned: [] });
    await end();
  });

  it('leaves no timer behind', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const countTimeouts = trackTimeouts();
    const closed = middleware.close();
    expect(countTimeouts()).toBe(1);
    running.released.resolve(undefined);
    await closed;
    expect(countTimeouts()).toBe(0);
    const { middleware: empty } = await serveTasks();
    await empty.close();
    expect(countTimeouts()).toBe(0);
  });
});

describe('promise 13: after the end of close()', () => {
  it.each(expresses)('Express %s answers an add with 503', async (_version, express) => {
    const app = express();
    const middleware = backgroundTasks();
    app.set('env', 'test');
    app.use(middleware);
    app.get('/', (_req, res) => {
      res.locals.backgroundTasks.add(() => {});
      res.send('sent');
    });
    app.get('/without', (_req, res) => {
      res.send('sent');
    });
    const { url } = await serve(app);
    await middleware.close();
    const response = await fetch(url);
    await response.text();
    expect(response.status).toBe(503);
    expect(await (await fetch(`${url}/without`)).text()).toBe('sent');
  });

  it('a list that was used before takes no more tasks', async () => {
    const { middleware, respond } = await serveTasks();
    const ran = jest.fn();
    const tasks = await respond((given) => {
      given.add(() => {});
      return given;
    });
    await middleware.close();
    expect(() => tasks.add(ran)).toThrow(closedError);
    await setImmediate();
    expect(ran).not.toHaveBeenCalled();
    await middleware.idle();
  });
});

describe('promise 13: at its timeout close() gives up', () => {
  it('aborts the signals of running tasks with ERR_TASK_ABANDONED', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    await respond((tasks) => tasks.add(task('running', running.run)));
    const signal = await running.begun.promise;
    const reason = deferred<unknown>();
    signal?.addEventListener('abort', () => reason.resolve(signal.reason));
    await middleware.close({ timeout: 1 });
    expect(await reason.promise).toEqual(abandonedError);
    expect(await reason.promise).toHaveProperty(
      'message',
      'task "running" was abandoned: it had not ended when close() reached its timeout of 1 ms',
    );
  });

  it('has aborted a signal that is read only later', async () => {
    const { middleware, respond } = await serveTasks();
    const begun = deferred();
    const released = deferred();
    const signal = deferred<AbortSignal | undefined>();
    await respond((tasks) =>
      tasks.add(async () => {
        begun.resolve();
        await released.promise;
        signal.resolve(currentTask()?.signal);
      }),
    );
    await begun.promise;
    await middleware.close({ timeout: 0 });
    released.resolve();
    expect(await signal.promise).toMatchObject({ aborted: true, reason: abandonedError });
  });

  it('drops running, pending, queued and backing-off tasks, reports each once and lists them', async () => {
    const { middleware, reports, respond, open } = await serveTasks({ concurrency: 2 });
    const running = gate();
    const failed = gate();
    failed.released.reject(error);
    const ran = jest.fn();
    const [first, second, cancelled] = await respond((tasks) => [
      tasks.add(task('running', running.run)),
      tasks.add(task('pending behind it', ran)),
      tasks.add(task('cancelled', ran)),
    ]);
    cancelled?.cancel();
    const backingOff = await respond((tasks) =>
      tasks.add(task('backing off', failed.run, { retries: { limit: 1, minDelay: 60_000 } })),
    );
    await Promise.all([running.begun.promise, failed.begun.promise]);
    const queued = await respond((tasks) => tasks.add(task('without a slot', ran)));
    const { added: unsent, end } = await open((tasks) => tasks.add(task('not sent', ran)));
    await setImmediate();

    const report = await middleware.close({ timeout: 0 });
    const dropped = [infoOf(first, 1), infoOf(second, 0), infoOf(backingOff, 1), infoOf(queued, 0), infoOf(unsent, 0)];
    expect(report).toEqual({ succeeded: 0, failed: 0, abandoned: dropped });
    expect(reports).toEqual(dropped.map((info) => ({ error: abandonedError, task: info })));
    for (const handle of [first, second, backingOff, queued, unsent]) {
      expect(handle?.status).toBe('abandoned');
      expect(await handle?.finished).toEqual({ status: 'abandoned', error: abandonedError });
      expect(handle?.cancel()).toBe(false);
    }
    expect(await cancelled?.finished).toEqual({ status: 'cancelled' });
    expect(middleware.stats).toEqual({
      pending: 0,
      running: 0,
      succeeded: 0,
      failed: 0,
      skipped: 0,
      cancelled: 1,
      abandoned: 5,
    });

    await end();
    running.released.resolve(undefined);
    await sleep(1);
    expect(ran).not.toHaveBeenCalled();
    expect(reports).toHaveLength(5);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 0, cancelled: 1, abandoned: 5 });
  });

  it('resolves idle() with it', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const idle = middleware.idle();
    await middleware.close({ timeout: 0 });
    await idle;
    await middleware.idle();
  });

  const lateEnds: [title: string, end: (running: Gate) => void][] = [
    ['resolves', ({ released }) => released.resolve('late')],
    ['rejects', ({ released }) => released.reject(error)],
  ];
  it.each(lateEnds)('ignores a task that %s later', async (_title, end) => {
    const { middleware, reports, respond } = await serveTasks({ timeout: 60_000, retries: 3 });
    const running = gate();
    const next = jest.fn();
    const handle = await respond((tasks) => {
      const added = tasks.add(running.run);
      tasks.add(next);
      return added;
    });
    await running.begun.promise;
    await middleware.close({ timeout: 0 });
    const { stats } = middleware;
    end(running);
    await sleep(1); // A rejection that nobody handles would fail this test.
    expect(handle.status).toBe('abandoned');
    expect(next).not.toHaveBeenCalled();
    expect(reports).toHaveLength(2);
    expect(middleware.stats).toEqual(stats);
  });

  it('reports once a task that rejects with the reason of its signal', async () => {
    const { middleware, reports, respond } = await serveTasks();
    const begun = deferred();
    await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        return sleep(60_000, undefined, { signal: currentTask()?.signal });
      }),
    );
    await begun.promise;
    await middleware.close({ timeout: 0 });
    await setImmediate();
    expect(reports).toHaveLength(1);
  });

  it('has ERR_TASKS_CLOSED for what the dropped tasks add', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    const thrown = deferred<unknown>();
    await respond((tasks) =>
      tasks.add(async () => {
        await running.run();
        try {
          tasks.add(() => {});
        } catch (caught) {
          thrown.resolve(caught);
        }
      }),
    );
    await running.begun.promise;
    await middleware.close({ timeout: 0 });
    running.released.resolve(undefined);
    expect(await thrown.promise).toEqual(closedError);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, abandoned: 1 });
  });

  it('reports a cancelled task that did not end', async () => {
    const { middleware, reports, respond } = await serveTasks();
    const running = gate();
    const handle = await respond((tasks) => tasks.add(running.run));
    const signal = await running.begun.promise;
    handle.cancel();
    const { abandoned } = await middleware.close({ timeout: 0 });
    expect(abandoned).toEqual([infoOf(handle, 1)]);
    expect(reports).toEqual([{ error: abandonedError, task: infoOf(handle, 1) }]);
    expect(signal?.reason.name).toBe('AbortError');
  });

  it('does not wait for an onError that does not settle', async () => {
    const onError = jest.fn(never);
    const { middleware, respond } = await serveTasks({ onError });
    const running = gate();
    await respond((tasks) => {
      tasks.add(() => Promise.reject(error));
      tasks.add(running.run);
    });
    await running.begun.promise;
    const { abandoned } = await middleware.close({ timeout: 5 });
    expect(abandoned).toHaveLength(1);
    expect(onError).toHaveBeenCalledTimes(2);

    const { middleware: other, respond: respondToo } = await serveTasks({ onError });
    const handle = await respondToo((tasks) => tasks.add(() => Promise.reject(error)));
    await handle.finished;
    expect(await other.close({ timeout: 5 })).toEqual({ succeeded: 0, failed: 0, abandoned: [] });
    await expect(respondToo((tasks) => tasks.add(() => {}))).rejects.toEqual(closedError);
  });

  it('reports the other tasks also when onError throws or tries to add', async () => {
    const logged: unknown[] = [];
    const thrown: unknown[] = [];
    const { middleware, open } = await serveTasks({
      logger: { error: (context) => logged.push((context as { err: unknown }).err) },
      onError: (reported, { res }) => {
        expect(reported).toEqual(abandonedError);
        try {
          res?.locals.backgroundTasks.add(() => {});
        } catch (caught) {
          thrown.push(caught);
          throw caught;
        }
      },
    });
    const { end } = await open((tasks) => [tasks.add(() => {}), tasks.add(() => {})]);
    const { abandoned } = await middleware.close({ timeout: 0 });
    expect(abandoned).toHaveLength(2);
    expect(thrown).toEqual([closedError, closedError]);
    await middleware.idle();
    expect(logged).toHaveLength(4);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, abandoned: 2 });
    await end();
  });

  it('drops no task that onError or an abort listener cancels in time', async () => {
    const handles: TaskHandle[] = [];
    const { middleware, respond, open } = await serveTasks({
      retries: { limit: 1, minDelay: 60_000 },
      onError: () => {
        handles[2]?.cancel();
      },
    });
    const running = gate();
    await respond((tasks) =>
      handles.push(
        tasks.add(running.run),
        tasks.add(() => {}),
        tasks.add(() => {}),
      ),
    );
    const signal = await running.begun.promise;
    const failed = gate();
    failed.released.reject(error);
    await respond((tasks) => handles.push(tasks.add(failed.run)));
    await failed.begun.promise;
    const { end } = await open((tasks) => handles.push(tasks.add(() => {})));
    signal?.addEventListener('abort', () => {
      handles[0]?.cancel();
      handles[1]?.cancel();
      handles[3]?.cancel();
      handles[4]?.cancel();
    });
    const { abandoned } = await middleware.close({ timeout: 0 });
    await middleware.idle();
    expect(handles.map(({ status }) => status)).toEqual([
      'abandoned',
      'cancelled',
      'cancelled',
      'abandoned',
      'cancelled',
    ]);
    expect(abandoned).toEqual([infoOf(handles[0], 1), infoOf(handles[3], 1)]);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, cancelled: 3, abandoned: 2 });
    await end();
  });

  it('stops nothing else when a task in the backoff is dropped and cancelled by its abort', async () => {
    const handles: TaskHandle[] = [];
    const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
    const begun = deferred();
    await respond((tasks) =>
      handles.push(
        tasks.add(() => {
          currentTask()?.signal.addEventListener('abort', () => handles[0]?.cancel());
          begun.resolve();
          throw error;
        }),
      ),
    );
    await begun.promise;
    const { abandoned } = await middleware.close({ timeout: 0 });
    await setImmediate();
    expect(abandoned).toEqual([infoOf(handles[0], 1)]);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, cancelled: 0, abandoned: 1 });
  });

  it('drops what is left of a list of synchronous tasks between two time slices', async () => {
    const { middleware, reports, respond } = await serveTasks();
    const begun = deferred();
    const ran = jest.fn(() => {
      begun.resolve();
      const end = performance.now() + 1;
      while (performance.now() < end);
    });
    const handles = await respond((tasks) => Array.from({ length: 2000 }, () => tasks.add(ran)));
    await begun.promise;
    const { succeeded, abandoned } = await middleware.close({ timeout: 0 });
    await setImmediate();
    expect(abandoned.length).toBeGreaterThan(0);
    expect(ran).toHaveBeenCalledTimes(middleware.stats.succeeded);
    expect(succeeded).toBeLessThanOrEqual(middleware.stats.succeeded);
    expect(reports).toHaveLength(abandoned.length);
    expect(middleware.stats).toEqual({
      pending: 0,
      running: 0,
      succeeded: handles.length - abandoned.length,
      failed: 0,
      skipped: 0,
      cancelled: 0,
      abandoned: abandoned.length,
    });
  });

  it('reports the last failure of a task in the backoff as the cause', async () => {
    const { middleware, reports, respond, open } = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
    const begun = deferred();
    await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        throw error;
      }),
    );
    await begun.promise;
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const { end } = await open((tasks) => tasks.add(() => {}));
    await middleware.close({ timeout: 0 });
    expect(reports).toMatchObject(Array(3).fill({ error: { code: 'ERR_TASK_ABANDONED' } }));
    const causes = reports.map((report) => [
      Object.hasOwn(report.error as Error, 'cause'),
      (report.error as Error).cause,
    ]);
    expect(causes).toEqual([
      [true, error],
      [false, undefined],
      [false, undefined],
    ]);
    await end();
  });

  it.each<[string, Task<[]>, unknown]>([
    ['has rejected', task('rejects', () => Promise.reject(error)), error],
    ['was late', task('late', never, { timeout: 1 }), expect.objectContaining({ code: 'ERR_TASK_TIMEOUT' })],
  ])('reports it also where the attempt before %s', async (_title, failing, cause) => {
    const { middleware, reports, respond } = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
    await respond((tasks) => tasks.add(failing));
    await sleep(20);
    await middleware.close({ timeout: 0 });
    expect(reports).toMatchObject([{ error: { code: 'ERR_TASK_ABANDONED', cause } }]);
  });

  it('drops a task whose backoff has just ended, and makes no further attempt', async () => {
    fakeTimeouts();
    const { middleware, reports, respond } = await serveTasks({
      concurrency: 1,
      retries: { limit: 1, minDelay: 100, jitter: false },
    });
    const attempts = jest.fn();
    const begun = deferred();
    const handle = await respond((tasks) =>
      tasks.add(() => {
        attempts();
        begun.resolve();
        throw error;
      }),
    );
    await begun.promise;
    const waiting = await respond((tasks) => tasks.add(attempts));
    const closed = middleware.close({ timeout: 100 });
    jest.advanceTimersByTime(100);
    expect(await closed).toMatchObject({ abandoned: [infoOf(handle, 1), infoOf(waiting, 0)] });
    await setImmediate();
    expect(attempts).toHaveBeenCalledTimes(1);
    expect(reports).toHaveLength(2);
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 0, abandoned: 2 });
  });

  it('gives the slots back: what is over only now runs through', async () => {
    const { middleware, respond, open } = await serveTasks({ concurrency: 1 });
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const late = await open((tasks) => tasks.add(() => {}));
    await middleware.close({ timeout: 0 });
    await late.end();
    await setImmediate();
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, abandoned: 2 });
  });

  it('leaves no timer behind', async () => {
    const countTimeouts = trackTimeouts();
    const { middleware, respond } = await serveTasks({ timeout: 60_000, retries: { limit: 1, minDelay: 60_000 } });
    const running = gate();
    const failed = gate();
    failed.released.reject(error);
    await respond((tasks) => tasks.add(running.run));
    await respond((tasks) => tasks.add(failed.run));
    await Promise.all([running.begun.promise, failed.begun.promise]);
    await setImmediate();
    expect(countTimeouts()).toBe(2);
    await middleware.close({ timeout: 0 });
    expect(countTimeouts()).toBe(0);
  });
});

describe('the timeout of close()', () => {
  it('is 10 seconds without options', async () => {
    const { middleware, open } = await serveTasks();
    const { end } = await open((tasks) => tasks.add(() => {}));
    fakeTimeouts();
    let report: unknown;
    const closed = middleware.close().then((value) => {
      report = value;
    });
    jest.advanceTimersByTime(9999);
    await setImmediate();
    expect(report).toBeUndefined();
    jest.advanceTimersByTime(1);
    await closed;
    expect(report).toMatchObject({ abandoned: [{ attempt: 0 }] });
    await end();
  });

  it('may be 0: then nothing is waited for', async () => {
    const { middleware, open } = await serveTasks();
    const { end } = await open((tasks) => tasks.add(() => {}));
    expect(await middleware.close({ timeout: 0 })).toMatchObject({ abandoned: [{ attempt: 0 }] });
    await end();
  });

  it('may be Infinity: then there is none, and no timer', async () => {
    const { middleware, open } = await serveTasks();
    const { end } = await open((tasks) => tasks.add(() => {}));
    const countTimeouts = trackTimeouts();
    const closed = middleware.close({ timeout: Number.POSITIVE_INFINITY });
    expect(countTimeouts()).toBe(0);
    await end();
    expect(await closed).toEqual({ succeeded: 1, failed: 0, abandoned: [] });
  });

  const bad: [options: unknown][] = [
    [{ timeout: -1 }],
    [{ timeout: Number.NaN }],
    [{ timeout: '1000' }],
    [{ timeout: null }],
    [{ timeout: 2 ** 31 }],
    [{ time: 1 }],
    [null],
    [1000],
    [[]],
  ];
  it.each(bad)('is refused with ERR_INVALID_OPTION: %j', async (options) => {
    const { middleware, respond } = await serveTasks();
    const rejected = middleware.close(options as object);
    await expect(rejected).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
    // Nothing is closed by it.
    await respond((tasks) => tasks.add(() => {}));
    expect(await middleware.close({ timeout: undefined })).toMatchObject({ abandoned: [] });
    expect(middleware.stats.succeeded).toBe(1);
  });
});

describe('close() called again', () => {
  it('returns the same promise', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const first = middleware.close();
    expect(middleware.close({ timeout: 60_000 })).toBe(first);
    expect(middleware.stats.running).toBe(1);
    running.released.resolve(undefined);
    expect(await first).toEqual({ succeeded: 1, failed: 0, abandoned: [] });
    expect(middleware.close()).toBe(first);
  });

  it.each<[string, number[], shortest: number]>([
    ['the second is shorter', [60_000, 300], 300],
    ['the second is longer', [300, 60_000], 300],
    ['the second has none', [300, Number.POSITIVE_INFINITY], 300],
    ['the first has none', [Number.POSITIVE_INFINITY, 300], 300],
    ['the third is the shortest', [60_000, 5_000, 200, 300], 200],
  ])('counts the shortest of the timeouts: %s', async (_title, timeouts, shortest) => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    const handle = await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    fakeTimeouts();
    let isClosed = false;
    const closed = Promise.all(timeouts.map((timeout) => middleware.close({ timeout }))).then((reports) => {
      isClosed = true;
      return reports;
    });
    jest.advanceTimersByTime(shortest - 1);
    await setImmediate();
    expect(isClosed).toBe(false);
    jest.advanceTimersByTime(1);
    const abandoned = [infoOf(handle, 1)];
    expect(await closed).toEqual(timeouts.map(() => ({ succeeded: 0, failed: 0, abandoned })));
    expect(await handle.finished).toMatchObject({
      error: { message: expect.stringContaining(`its timeout of ${shortest} ms`) },
    });
  });

  it('counts from the first call on, and each timeout from its own', async () => {
    fakeTimeouts();
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => tasks.add(() => {}));
    const running = gate();
    const handle = await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const closed = middleware.close({ timeout: 1000 });
    await respond((tasks) => tasks.add(() => {}));
    jest.advanceTimersByTime(500);
    void middleware.close({ timeout: 400 });
    jest.advanceTimersByTime(399);
    expect(handle.status).toBe('running');
    jest.advanceTimersByTime(1);
    expect(await closed).toEqual({ succeeded: 1, failed: 0, abandoned: [infoOf(handle, 1)] });
  });

  it('leaves no timer behind', async () => {
    const { middleware, respond } = await serveTasks();
    const running = gate();
    await respond((tasks) => tasks.add(running.run));
    await running.begun.promise;
    const countTimeouts = trackTimeouts();
    const closed = [60_000, 50_000, 55_000].map((timeout) => middleware.close({ timeout }));
    expect(countTimeouts()).toBe(1);
    running.released.resolve(undefined);
    await Promise.all(closed);
    void middleware.close({ timeout: 1000 });
    expect(countTimeouts()).toBe(0);
  });

  it('has a time limit of its own while a call inside a task gives up', async () => {
    const { middleware, respond } = await serveTasks();
    const shut = deferred();
    const closesInside = async (): Promise<void> => {
      await shut.promise;
      void middleware.close({ timeout: 0 });
      await never();
    };
    const handle = await respond((tasks) => {
      const first = tasks.add(closesInside);
      // More than are given up without a pause.
      for (let count = 0; count < 100_000; count++) tasks.add(() => {});
      return first;
    });
    shut.resolve();
    while (middleware.stats.abandoned === 0) await setImmediate();
    expect(middleware.stats.pending).toBeGreaterThan(0);
    const { abandoned } = await middleware.close({ timeout: 20 });
    expect(abandoned).toHaveLength(100_001);
    expect(handle.status).toBe('abandoned');
  });

  it('is refused with bad options too', async () => {
    const { middleware } = await serveTasks();
    await middleware.close();
    await expect(middleware.close({ timeout: -1 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
  });
});
