// Promise 13, its last sentence: idle() and close() called in a task, or in onError, do not wait for that.

import { setImmediate as nextTurn, setTimeout as sleep } from 'node:timers/promises';
import {
  type BackgroundTasks,
  type BackgroundTasksMiddleware,
  type BackgroundTasksOptions,
  type CloseReport,
  currentTask,
  type TaskHandle,
  task,
} from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { countKept } from '../fixtures/garbage';
import { type ServedTasks, serveTasks } from '../fixtures/serve-tasks';
import { trackTimeouts } from '../fixtures/timeouts';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const error = new Error('boom');
const minute = { timeout: 60_000 };

const calls: [string, (middleware: BackgroundTasksMiddleware) => Promise<unknown>][] = [
  ['idle()', (middleware) => middleware.idle()],
  ['close()', (middleware) => middleware.close(minute)],
];

/** A promise, and whether it has settled. */
function watch<T>(promise: Promise<T>): { promise: Promise<T>; isOver: boolean } {
  const watched = { promise, isOver: false };
  void promise.then(() => {
    watched.isOver = true;
  });
  return watched;
}

/** A response with a task that calls and awaits, and what that resolved with. */
async function callInTask(
  { respond }: ServedTasks,
  call: () => Promise<unknown>,
  addBehind: (tasks: BackgroundTasks) => void = () => {},
) {
  const called = deferred();
  const handle = await respond((tasks) => {
    const added = tasks.add(async () => {
      const waiting = call();
      called.resolve();
      return waiting;
    });
    addBehind(tasks);
    return added;
  });
  await called.promise;
  return handle;
}

describe.each(calls)('%s in a task', (_title, call) => {
  it('does not wait for that task', async () => {
    const served = await serveTasks();
    const handle = await callInTask(served, () => call(served.middleware));
    expect(await handle.finished).toMatchObject({ status: 'succeeded' });
    await served.middleware.idle();
  });

  it('does not wait for it at its second attempt either, nor where it is called more than once', async () => {
    const served = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
    const handle = await callInTask(served, async () => {
      if (currentTask()?.attempt === 1) throw error;
      await Promise.all([call(served.middleware), call(served.middleware)]);
      await call(served.middleware);
    });
    expect(await handle.finished).toMatchObject({ status: 'succeeded' });
  });

  it('waits for the tasks of other responses', async () => {
    const served = await serveTasks();
    const other = deferred();
    await served.respond((tasks) => {
      tasks.add(() => other.promise);
      tasks.add(() => sleep(1));
    });
    const { added: unsent, end } = await served.open((tasks) => tasks.add(() => {}));
    const handle = await callInTask(served, () => call(served.middleware));
    await sleep(5);
    other.resolve();
    await sleep(5);
    expect([handle.status, unsent.status]).toEqual(['running', 'pending']);
    await end();
    expect(await handle.finished).toMatchObject({ status: 'succeeded' });
    expect(served.middleware.stats.succeeded).toBe(4);
  });

  it('does not wait for another task that waits so', async () => {
    const served = await serveTasks();
    const other = deferred();
    await served.respond((tasks) => tasks.add(() => other.promise));
    const handles = [
      await callInTask(served, () => call(served.middleware)),
      await callInTask(served, () => call(served.middleware)),
      await callInTask(served, () => served.middleware.idle()),
    ];
    await sleep(5);
    expect(handles.map(({ status }) => status)).toEqual(['running', 'running', 'running']);
    other.resolve();
    await Promise.all(handles.map(({ finished }) => finished));
    expect(served.middleware.stats).toMatchObject({ running: 0, succeeded: 4 });
  });

  it('ends where the last other one calls it in its turn, later', async () => {
    const served = await serveTasks();
    const go = deferred();
    const late = await served.respond((tasks) =>
      tasks.add(async () => {
        await go.promise;
        await call(served.middleware);
      }),
    );
    const early = await callInTask(served, () => call(served.middleware));
    await sleep(5);
    expect([early.status, late.status]).toEqual(['running', 'running']);
    go.resolve();
    const outcomes = await Promise.all([early.finished, late.finished]);
    expect(outcomes.map(({ status }) => status)).toEqual(['succeeded', 'succeeded']);
  });

  it('waits in a task of another middleware', async () => {
    const [ours, theirs] = [await serveTasks(), await serveTasks()];
    const other = deferred();
    await theirs.respond((tasks) => tasks.add(() => other.promise));
    const handle = await callInTask(ours, () => call(theirs.middleware));
    await sleep(5);
    expect(handle.status).toBe('running');
    other.resolve();
    expect(await handle.finished).toMatchObject({ status: 'succeeded' });
  });

  it('waits if the call is made by something that an ended task has left behind', async () => {
    const served = await serveTasks();
    const over = deferred();
    const called = deferred<unknown>();
    await served.respond((tasks) => {
      tasks.add(() => void over.promise.then(() => called.resolve(watch(call(served.middleware)))));
    });
    const other = deferred();
    await served.respond((tasks) => tasks.add(() => other.promise));
    over.resolve();
    const waiting = (await called.promise) as ReturnType<typeof watch>;
    await sleep(5);
    expect(waiting.isOver).toBe(false);
    other.resolve();
    await waiting.promise;
  });

  it('is waited for by a call outside', async () => {
    const served = await serveTasks();
    const rest = deferred();
    await callInTask(served, async () => {
      await call(served.middleware);
      await rest.promise;
    });
    const outside = watch(call(served.middleware));
    await sleep(5);
    expect(outside.isOver).toBe(false);
    rest.resolve();
    await outside.promise;
    expect(served.middleware.stats).toMatchObject({ running: 0, succeeded: 1 });
  });

  it('is waited for by a call outside that came before', async () => {
    const served = await serveTasks();
    const [begun, go, rest] = [deferred(), deferred(), deferred()];
    const inside = deferred();
    await served.respond((tasks) =>
      tasks.add(async () => {
        begun.resolve();
        await go.promise;
        await call(served.middleware);
        inside.resolve();
        await rest.promise;
      }),
    );
    await begun.promise;
    const outside = watch(call(served.middleware));
    go.resolve();
    await inside.promise;
    await sleep(5);
    expect(outside.isOver).toBe(false);
    rest.resolve();
    await outside.promise;
    expect(served.middleware.stats).toMatchObject({ running: 0, succeeded: 1, abandoned: 0 });
  });

  it('keeps no response alive', async () => {
    const served = await serveTasks();
    const refs: WeakRef<object>[] = [];
    await served.respond((tasks, res) => {
      refs.push(new WeakRef(res), new WeakRef(res.req));
      tasks.add(() => call(served.middleware));
    });
    await served.middleware.idle();
    served.closeConnections();
    expect(await countKept(refs)).toBe(0);
  });
});

describe.each(calls)('%s in onError', (_title, call) => {
  const hooks: [string, (call: () => Promise<unknown>) => BackgroundTasksOptions['onError']][] = [
    [
      'at once',
      (call) => async () => {
        await call();
      },
    ],
    [
      'later',
      (call) => async () => {
        await sleep(1);
        await call();
        await call();
      },
    ],
  ];
  it.each(hooks)('does not wait for the report: %s', async (_when, hook) => {
    const ended = deferred();
    const waiting = async (): Promise<void> => {
      await call(served.middleware);
      ended.resolve();
    };
    const served: ServedTasks = await serveTasks({ onError: hook(waiting) });
    const other = deferred();
    await served.respond((tasks) => tasks.add(() => other.promise));
    await served.respond((tasks) => tasks.add(() => Promise.reject(error)));
    await sleep(10);
    other.resolve();
    await ended.promise;
    await served.middleware.idle();
    expect(served.middleware.stats).toMatchObject({ succeeded: 1, failed: 1, abandoned: 0 });
  });

  it('waits for the others if it is not awaited', async () => {
    const called = deferred<ReturnType<typeof watch>>();
    const served: ServedTasks = await serveTasks({
      onError: () => {
        const waiting = watch(call(served.middleware));
        setImmediate(() => called.resolve(waiting));
      },
    });
    const other = deferred();
    await served.respond((tasks) => tasks.add(() => other.promise));
    await served.respond((tasks) => tasks.add(() => Promise.reject(error)));
    const waiting = await called.promise;
    await sleep(5);
    expect(waiting.isOver).toBe(false);
    other.resolve();
    await waiting.promise;
  });

  const endings: [string, () => Promise<void> | void][] = [
    ['a synchronous', () => {}],
    ['an asynchronous', () => sleep(1)],
  ];
  it.each(endings)('waits if the call is made by something that %s onError has left behind', async (_which, end) => {
    const over = deferred();
    const called = deferred<ReturnType<typeof watch>>();
    const served: ServedTasks = await serveTasks({
      onError: () => {
        void over.promise.then(() => called.resolve(watch(call(served.middleware))));
        return end();
      },
    });
    await served.respond((tasks) => tasks.add(() => Promise.reject(error)));
    const other = deferred();
    const handle = await served.respond((tasks) => tasks.add(() => other.promise));
    while (handle.status !== 'running') await nextTurn();
    over.resolve();
    const waiting = await called.promise;
    await sleep(5);
    expect(waiting.isOver).toBe(false);
    other.resolve();
    await waiting.promise;
  });

  it('waits in the onError of another middleware', async () => {
    const theirs = await serveTasks();
    const called = deferred<ReturnType<typeof watch>>();
    const ours = await serveTasks({
      onError: async () => {
        const waiting = watch(call(theirs.middleware));
        called.resolve(waiting);
        await waiting.promise;
      },
    });
    const other = deferred();
    await theirs.respond((tasks) => tasks.add(() => other.promise));
    await ours.respond((tasks) => tasks.add(() => Promise.reject(error)));
    const waiting = await called.promise;
    await sleep(5);
    expect(waiting.isOver).toBe(false);
    other.resolve();
    await waiting.promise;
  });
});

describe.each(calls)('%s in the logger', (_title, call) => {
  const failing: [string, BackgroundTasksOptions['waitUntil'], () => unknown][] = [
    ['of a failed task', undefined, () => Promise.reject(error)],
    ['of a failed waitUntil', () => Promise.reject(error), () => {}],
  ];
  it.each(failing)('does not wait for the log entry: %s', async (_what, waitUntil, fn) => {
    const logged = deferred();
    const logger = {
      async error() {
        await sleep(1);
        await call(served.middleware);
        logged.resolve();
      },
    };
    const served: ServedTasks = await serveTasks({ onError: undefined, logger, waitUntil });
    await served.respond((tasks) => tasks.add(fn));
    await logged.promise;
    await served.middleware.idle();
    expect(served.middleware.stats).toMatchObject({ pending: 0, running: 0, abandoned: 0 });
  });
});

describe('idle() in a task', () => {
  it('does not wait for the tasks behind that task, which cannot begin earlier', async () => {
    const served = await serveTasks();
    const other = deferred();
    await served.respond((tasks) => tasks.add(() => other.promise));
    const ran = jest.fn();
    const handle = await callInTask(
      served,
      () => served.middleware.idle().then(() => ran.mock.calls.length),
      (tasks) => {
        tasks.add(ran);
        tasks.add(ran);
      },
    );
    await sleep(5);
    expect(handle.status).toBe('running');
    other.resolve();
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 0 });
    await served.middleware.idle();
    expect(ran).toHaveBeenCalledTimes(2);
  });

  it.each([1, 2])('does not wait for what waits for its slot (concurrency %d)', async (concurrency) => {
    const served = await serveTasks({ concurrency });
    const go = deferred();
    const handles: TaskHandle[] = [];
    for (let slot = 0; slot < concurrency; slot++) {
      handles.push(await callInTask(served, () => go.promise.then(() => served.middleware.idle())));
    }
    const waiting = await served.respond((tasks) => tasks.add(() => {}));
    go.resolve();
    for (const { finished } of handles) expect(await finished).toMatchObject({ status: 'succeeded' });
    expect(await waiting.finished).toMatchObject({ status: 'succeeded' });
  });
});

describe('close() in a task', () => {
  it('closes for that task too', async () => {
    const { middleware, respond } = await serveTasks();
    const handle = await respond((tasks) =>
      tasks.add(async () => {
        const report = await middleware.close();
        expect(() => tasks.add(() => {})).toThrow(expect.objectContaining({ code: 'ERR_TASKS_CLOSED' }));
        return report;
      }),
    );
    expect(await handle.finished).toEqual({
      status: 'succeeded',
      value: { succeeded: 0, failed: 0, abandoned: [] },
    });
    expect(await middleware.close()).toEqual({ succeeded: 1, failed: 0, abandoned: [] });
  });

  it('gives up the tasks behind the task, and others, at its timeout, but not the task itself', async () => {
    const served = await serveTasks();
    const stuck = await served.respond((tasks) => tasks.add(task('stuck', () => new Promise(() => {}))));
    while (stuck.status !== 'running') await nextTurn();
    const ran = jest.fn();
    let isAborted: boolean | undefined;
    const handle = await callInTask(
      served,
      async () => {
        const report = await served.middleware.close({ timeout: 5 });
        isAborted = currentTask()?.signal.aborted;
        return report;
      },
      (tasks) => tasks.add(task('behind', ran)),
    );
    const outcome = await handle.finished;
    expect(outcome).toMatchObject({
      status: 'succeeded',
      value: { succeeded: 0, failed: 0, abandoned: [{ name: 'stuck' }, { name: 'behind' }] },
    });
    expect(isAborted).toBe(false);
    await served.middleware.idle();
    expect(served.reports.map((report) => report.task.name)).toEqual(['stuck', 'behind']);
    expect(served.middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 1, abandoned: 2 });
    expect(ran).not.toHaveBeenCalled();
  });

  it('ends at its timeout, though the report of another task never does', async () => {
    const reported = deferred();
    const served = await serveTasks({
      onError: () => {
        reported.resolve();
        return new Promise(() => {});
      },
    });
    await served.respond((tasks) => tasks.add(() => Promise.reject(error)));
    await reported.promise;
    const handle = await callInTask(served, () => served.middleware.close({ timeout: 5 }));
    expect(await handle.finished).toMatchObject({ status: 'succeeded', value: { abandoned: [] } });
  });

  it('gives up the task as well if a call from outside waits for it', async () => {
    const served = await serveTasks();
    const handle = await callInTask(served, () => served.middleware.close(minute).then(() => new Promise(() => {})));
    const { abandoned } = await served.middleware.close({ timeout: 5 });
    expect(abandoned).toEqual([{ id: handle.id, name: handle.name, attempt: 1 }]);
    expect(await handle.finished).toMatchObject({ status: 'abandoned' });
  });

  it('takes the shortest timeout, of whichever call', async () => {
    const served = await serveTasks();
    const stuck = await served.respond((tasks) => tasks.add(() => new Promise(() => {})));
    while (stuck.status !== 'running') await nextTurn();
    const outside = served.middleware.close(minute);
    const handle = await callInTask(served, async () => {
      await served.middleware.close({ timeout: 5 });
      return new Promise(() => {});
    });
    const { abandoned } = await outside;
    expect(abandoned.map(({ id }) => id)).toEqual([stuck.id, handle.id]);
  });

  it('has a timeout of its own if a task has closed before and still runs', async () => {
    const served = await serveTasks();
    const closed = deferred();
    const handle = await callInTask(served, async () => {
      await served.middleware.close({ timeout: 60_000 });
      closed.resolve();
      return new Promise(() => {});
    });
    await closed.promise;
    const { abandoned } = await served.middleware.close({ timeout: 5 });
    expect(abandoned.map(({ id }) => id)).toEqual([handle.id]);
  });

  it('lets the tasks behind run if the task does not await it', async () => {
    const served = await serveTasks();
    const ran = jest.fn();
    const report = deferred<CloseReport>();
    await served.respond((tasks) => {
      tasks.add(() => {
        void served.middleware.close().then(report.resolve);
      });
      tasks.add(ran);
      tasks.add(ran);
    });
    expect(await report.promise).toEqual({ succeeded: 3, failed: 0, abandoned: [] });
    expect(ran).toHaveBeenCalledTimes(2);
  });

  it('leaves no timer behind', async () => {
    const countTimeouts = trackTimeouts();
    const served = await serveTasks();
    const rest = deferred();
    const closed = deferred();
    const handle = await callInTask(served, async () => {
      await served.middleware.close(minute);
      closed.resolve();
      await rest.promise;
    });
    const outside = served.middleware.close(minute);
    await closed.promise;
    expect(countTimeouts()).toBe(1);
    rest.resolve();
    await handle.finished;
    await outside;
    expect(countTimeouts()).toBe(0);
  });
});
