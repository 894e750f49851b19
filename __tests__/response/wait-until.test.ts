// waitUntil: how a serverless host is kept alive until the tasks of a response have ended.

import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import { type BackgroundTasksOptions, type Logger, type TaskHandle, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');

/** Records the promises that waitUntil was given, and which of them have resolved. */
function recorder(): { waitUntil: (work: Promise<void>) => void; works: Promise<void>[]; resolved: number[] } {
  const works: Promise<void>[] = [];
  const resolved: number[] = [];
  return {
    works,
    resolved,
    waitUntil(work) {
      const index = works.push(work) - 1;
      void work.then(() => resolved.push(index));
    },
  };
}

function quietLogger(): { logger: Logger; logged: unknown[][] } {
  const logged: unknown[][] = [];
  return { logged, logger: { error: (...args) => logged.push(args) } };
}

describe('waitUntil', () => {
  it('is called at the first add of a response, and only then', async () => {
    const waitUntil = jest.fn();
    const { middleware, respond } = await serveTasks({ waitUntil });
    await respond((tasks) => {
      expect(waitUntil).toHaveBeenCalledTimes(0);
      tasks.add(() => {});
      expect(waitUntil).toHaveBeenCalledTimes(1);
      tasks.add(() => {
        tasks.add(() => {});
      });
      expect(waitUntil).toHaveBeenCalledTimes(1);
    });
    await middleware.idle();
    expect(waitUntil.mock.calls).toEqual([[expect.any(Promise)]]);
  });

  it('covers what follows in the turn in which the last task has ended', async () => {
    const { waitUntil, works, resolved } = recorder();
    const { respond } = await serveTasks({ waitUntil });
    const released = deferred();
    const added = deferred<TaskHandle>();
    await respond((tasks) => {
      void tasks
        .add(() => {})
        .finished.then(() => process.nextTick(() => added.resolve(tasks.add(() => released.promise))));
    });
    await added.promise;
    await sleep(5);
    expect([works.length, resolved]).toEqual([1, []]);
    released.resolve();
    await works[0];
  });

  it('is called again for what is added after the list had ended', async () => {
    const { waitUntil, works, resolved } = recorder();
    const { respond } = await serveTasks({ waitUntil });
    const tasks = await respond((tasks) => {
      tasks.add(() => {});
      return tasks;
    });
    await works[0];
    for (const round of [1, 2]) {
      const released = deferred();
      tasks.add(() => released.promise);
      tasks.add(() => {});
      expect(works).toHaveLength(round + 1);
      await sleep(5);
      expect(resolved).toHaveLength(round);
      released.resolve();
      await works[round];
    }
    expect(works).toHaveLength(3);
  });

  it('is called for what is added once the response is over', async () => {
    const { waitUntil, works } = recorder();
    const { respond } = await serveTasks({ waitUntil });
    const tasks = await respond((tasks) => tasks);
    expect(works).toHaveLength(0);
    const { finished } = tasks.add(() => {});
    expect(works).toHaveLength(1);
    await finished;
    await works[0];
  });

  it('is called for each response that has tasks, and for no other', async () => {
    const { waitUntil, works } = recorder();
    const { middleware, respond } = await serveTasks({ waitUntil });
    await respond(() => {});
    expect(works).toHaveLength(0);
    await respond((tasks) => tasks.add(() => {}));
    await respond((tasks) => tasks.add(() => {}));
    await middleware.idle();
    expect(works).toHaveLength(2);
    expect(works[0]).not.toBe(works[1]);
  });

  it('is not called for an add that is refused', async () => {
    const waitUntil = jest.fn();
    const { middleware, respond } = await serveTasks({ waitUntil });
    await respond((tasks) => {
      expect(() => tasks.add(undefined as never)).toThrow();
    });
    await middleware.close();
    await expect(respond((tasks) => tasks.add(() => {}))).rejects.toMatchObject({ code: 'ERR_TASKS_CLOSED' });
    expect(waitUntil).not.toHaveBeenCalled();
  });

  it('resolves when all tasks of that response have ended, also those added late', async () => {
    const { waitUntil, works, resolved } = recorder();
    const { respond } = await serveTasks({ waitUntil });
    const others = deferred();
    await respond((tasks) => tasks.add(() => others.promise));
    const steps = [deferred(), deferred(), deferred()] as const;
    const begun = [deferred(), deferred(), deferred()] as const;
    await respond((tasks) => {
      tasks.add(() => {
        begun[0].resolve();
        tasks.add(() => {
          begun[2].resolve();
          return steps[2].promise;
        });
        return steps[0].promise;
      });
      tasks.add(() => {
        begun[1].resolve();
        return steps[1].promise;
      });
    });
    for (const index of [0, 1, 2] as const) {
      await begun[index].promise;
      await setImmediate();
      expect(resolved).toEqual([]);
      steps[index].resolve();
    }
    await works[1];
    expect(resolved).toEqual([1]);
    others.resolve();
    await works[0];
  });

  const ends: [title: string, options: BackgroundTasksOptions, fn: () => unknown][] = [
    ['failed', {}, () => Promise.reject(error)],
    ['skipped', { when: () => false }, () => {}],
    ['failed after retries', { retries: { limit: 1, minDelay: 1 } }, () => Promise.reject(error)],
    ['timed out', { timeout: 1 }, () => new Promise(() => {})],
  ];
  it.each(ends)('resolves when the tasks have %s', async (_title, options, fn) => {
    const { waitUntil, works } = recorder();
    const { respond } = await serveTasks({ ...options, waitUntil });
    await respond((tasks) => {
      tasks.add(fn);
      tasks.add(fn);
    });
    await expect(works[0]).resolves.toBeUndefined();
  });

  it('resolves when the tasks were cancelled', async () => {
    const { waitUntil, works } = recorder();
    const { respond } = await serveTasks({ waitUntil });
    await respond((tasks) => {
      tasks.add(() => {}).cancel();
    });
    await expect(works[0]).resolves.toBeUndefined();
  });

  it('resolves when the client left', async () => {
    const { waitUntil, works } = recorder();
    const { open } = await serveTasks({ waitUntil });
    const ran = jest.fn();
    const { added: res } = await open((tasks, response) => {
      tasks.add(ran);
      return response;
    });
    res.socket?.destroy();
    await works[0];
    expect(ran).toHaveBeenCalledTimes(1);
  });

  describe('resolves when close() abandons the tasks', () => {
    it('of a list that runs, and of one that waits for its turn', async () => {
      const { waitUntil, works } = recorder();
      const { middleware, respond } = await serveTasks({ waitUntil, concurrency: 1 });
      const begun = deferred();
      await respond((tasks) =>
        tasks.add(() => {
          begun.resolve();
          return new Promise(() => {});
        }),
      );
      await begun.promise;
      await respond((tasks) => tasks.add(() => {}));
      await middleware.close({ timeout: 0 });
      await Promise.all(works);
      expect(works).toHaveLength(2);
    });

    it('of a list in the backoff', async () => {
      const { waitUntil, works } = recorder();
      const { middleware, respond } = await serveTasks({ waitUntil, retries: { limit: 1, minDelay: 60_000 } });
      const begun = deferred();
      await respond((tasks) =>
        tasks.add(() => {
          begun.resolve();
          throw error;
        }),
      );
      await begun.promise;
      await middleware.close({ timeout: 0 });
      await works[0];
      expect(middleware.stats.abandoned).toBe(1);
    });

    it('and reports them', async () => {
      const { waitUntil, resolved } = recorder();
      const reported = deferred();
      const { middleware, open } = await serveTasks({ waitUntil, onError: () => reported.promise });
      const { end } = await open((tasks) => tasks.add(() => {}));
      await middleware.close({ timeout: 0 });
      await setImmediate();
      expect(resolved).toEqual([]);
      reported.resolve();
      await setImmediate();
      expect(resolved).toEqual([0]);
      await end();
    });

    it('of a response that is still being sent', async () => {
      const { waitUntil, works, resolved } = recorder();
      const { middleware, open } = await serveTasks({ waitUntil });
      const { end } = await open((tasks) => tasks.add(() => {}));
      await middleware.close({ timeout: 0 });
      await setImmediate();
      expect(resolved).toEqual([0]);
      await end();
      await works[0];
    });
  });

  it('resolves when onError has taken what there was to report', async () => {
    const { waitUntil, works, resolved } = recorder();
    const reported = [deferred(), deferred()];
    const calls: unknown[] = [];
    const { middleware, respond } = await serveTasks({
      waitUntil,
      onError: (thrown) => reported[calls.push(thrown) - 1]?.promise,
    });
    await respond((tasks) => {
      tasks.add(() => Promise.reject(error));
      tasks.add(() => Promise.reject(error));
    });
    while (calls.length < 2) await setImmediate();
    await setImmediate();
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, failed: 2 });
    expect(resolved).toEqual([]);
    reported[1]?.resolve();
    await setImmediate();
    expect(resolved).toEqual([]);
    reported[0]?.resolve();
    await works[0];
    await middleware.idle();
  });

  it('waits for the tasks when their reports are taken before', async () => {
    const { waitUntil, works, resolved } = recorder();
    const released = deferred();
    const { middleware, respond } = await serveTasks({ waitUntil, onError: async () => {} });
    const begun = deferred();
    await respond((tasks) => {
      tasks.add(() => Promise.reject(error));
      tasks.add(() => {
        begun.resolve();
        return released.promise;
      });
    });
    await begun.promise;
    await setImmediate();
    expect(resolved).toEqual([]);
    released.resolve();
    await works[0];
    await middleware.idle();
  });

  describe('that fails', () => {
    const failures: [title: string, waitUntil: () => void | Promise<void>][] = [
      [
        'throws',
        () => {
          throw error;
        },
      ],
      ['rejects', async () => Promise.reject(error)],
      [
        'rejects later',
        async () => {
          await sleep(1);
          throw error;
        },
      ],
    ];
    it.each(failures)('is logged when it %s, and the tasks run', async (_title, waitUntil) => {
      const { logger, logged } = quietLogger();
      const logs = deferred();
      const { middleware, reports, respond } = await serveTasks({
        waitUntil,
        logger: {
          error(context, message) {
            logger.error(context, message);
            logs.resolve();
          },
        },
      });
      const handle = await respond((tasks) => tasks.add(task('runs', () => 'all the same')));
      expect(await handle.finished).toEqual({ status: 'succeeded', value: 'all the same' });
      await logs.promise;
      expect(logged).toEqual([
        [
          { err: error, task: expect.objectContaining({ id: handle.id, name: 'runs' }) },
          'waitUntil failed; the tasks run all the same',
        ],
      ]);
      expect(reports).toEqual([]);
      await middleware.idle();
    });

    it('is harmless when the logger fails too', async () => {
      const consoleError = jest.spyOn(console, 'error').mockImplementation(() => {});
      const { middleware, respond } = await serveTasks({
        waitUntil: () => {
          throw error;
        },
        logger: {
          error() {
            throw new Error('logger');
          },
        },
      });
      const handle = await respond((tasks) => tasks.add(() => {}));
      await middleware.idle();
      await sleep(1);
      expect(handle.status).toBe('succeeded');
      expect(consoleError).toHaveBeenCalled();
      consoleError.mockRestore();
    });
  });
});
