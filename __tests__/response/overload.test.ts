// Promise 12, maxPending, and what promise 2 says of concurrency: the limits over all responses.

import { setImmediate } from 'node:timers/promises';
import type { ErrorRequestHandler } from 'express';
import { backgroundTasks, type TaskHandle, task } from '../../lib/index';
import { type Deferred, deferred } from '../fixtures/deferred';
import { expresses, serve } from '../fixtures/serve';
import { type ServedTasks, serveTasks } from '../fixtures/serve-tasks';

const error = new Error('boom');
const overloaded = expect.objectContaining({ name: 'BackgroundTasksError', code: 'ERR_TASKS_OVERLOADED', status: 503 });

describe('promise 12: overload', () => {
  describe.each(expresses)('in Express %s', (_version, express) => {
    it('is answered with 503 by its own error handling', async () => {
      const app = express();
      const middleware = backgroundTasks({ maxPending: 1 });
      app.set('env', 'test'); // Its error handling prints nothing.
      app.use(middleware);
      const released = deferred();
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(() => released.promise);
        res.send('sent');
      });
      const { url } = await serve(app);
      const statuses: number[] = [];
      for (let request = 0; request < 3; request++) {
        const response = await fetch(url);
        await response.text();
        statuses.push(response.status);
      }
      expect(statuses).toEqual([200, 503, 503]);
      released.resolve();
      await middleware.idle();
      const response = await fetch(url);
      expect(await response.text()).toBe('sent');
      expect(response.status).toBe(200);
      await middleware.idle();
    });

    it('is told to an error handler of the app', async () => {
      const app = express();
      app.use(backgroundTasks({ maxPending: 1 }));
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(() => {});
        res.locals.backgroundTasks.add(() => {});
        res.send('sent');
      });
      const handler: ErrorRequestHandler = (thrown, _req, res, _next) => {
        res.status(429).json({ code: thrown.code, status: thrown.status, message: thrown.message });
      };
      app.use(handler);
      const { url } = await serve(app);
      const response = await fetch(url);
      expect(response.status).toBe(429);
      expect(await response.json()).toEqual({
        code: 'ERR_TASKS_OVERLOADED',
        status: 503,
        message: 'add(): 1 tasks (maxPending) have not ended yet',
      });
    });
  });

  it('counts pending and running tasks, those of all responses', async () => {
    const { middleware, respond, open } = await serveTasks({ maxPending: 3 });
    const begun = deferred();
    const released = deferred();
    await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        return released.promise;
      }),
    );
    await begun.promise;
    const { end } = await open((tasks) => {
      tasks.add(() => {});
      tasks.add(() => {});
      expect(() => tasks.add(() => {})).toThrow(overloaded);
    });
    await respond((tasks) => expect(() => tasks.add(() => {})).toThrow(overloaded));
    expect(middleware.stats).toMatchObject({ pending: 2, running: 1 });
    await end();
    released.resolve();
    await middleware.idle();
    expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 3 });
  });

  it('leaves nothing of the refused task behind', async () => {
    const { middleware, reports, respond } = await serveTasks({ maxPending: 1 });
    const refused = jest.fn();
    await respond((tasks) => {
      tasks.add(() => {});
      expect(() => tasks.add(refused)).toThrow(overloaded);
    });
    await middleware.idle();
    expect(refused).not.toHaveBeenCalled();
    expect(reports).toEqual([]);
    expect(middleware.stats).toEqual({
      pending: 0,
      running: 0,
      succeeded: 1,
      failed: 0,
      skipped: 0,
      cancelled: 0,
      abandoned: 0,
    });
  });

  it('lets a task of this response run when its first add was refused before', async () => {
    const { middleware, open, respond } = await serveTasks({ maxPending: 1 });
    const { added: handle, end } = await open((tasks) => tasks.add(() => {}));
    const ran = jest.fn();
    await respond((tasks) => {
      expect(() => tasks.add(ran)).toThrow(overloaded);
      handle.cancel();
      tasks.add(ran);
    });
    await middleware.idle();
    expect(ran).toHaveBeenCalledTimes(1);
    await end();
  });

  it('refuses a task of a task', async () => {
    const { middleware, reports, respond } = await serveTasks({ maxPending: 1 });
    await respond((tasks) =>
      tasks.add(() => {
        tasks.add(() => {});
      }),
    );
    await middleware.idle();
    expect(reports).toEqual([{ error: overloaded, task: expect.anything() }]);
  });

  describe('makes room as tasks', () => {
    const boundary = { maxPending: 1 };

    async function room(served: ServedTasks): Promise<void> {
      await served.middleware.idle();
      await served.respond((tasks) => {
        const handle = tasks.add(() => {});
        expect(() => tasks.add(() => {})).toThrow(overloaded);
        return handle;
      });
      await served.middleware.idle();
    }

    it('succeed', async () => {
      const served = await serveTasks(boundary);
      await served.respond((tasks) => tasks.add(async () => {}));
      await room(served);
      expect(served.middleware.stats.succeeded).toBe(2);
    });

    it('fail', async () => {
      const served = await serveTasks(boundary);
      await served.respond((tasks) => tasks.add(() => Promise.reject(error)));
      await room(served);
      expect(served.middleware.stats.failed).toBe(1);
    });

    it('time out', async () => {
      const served = await serveTasks({ ...boundary, timeout: 1 });
      await served.respond((tasks) => tasks.add(() => new Promise(() => {})));
      await room(served);
      expect(served.middleware.stats.failed).toBe(1);
    });

    it('are skipped', async () => {
      const served = await serveTasks({ ...boundary, when: 'success' });
      await served.respond((tasks, res) => {
        res.status(500);
        tasks.add(() => {});
      });
      await room(served);
      expect(served.middleware.stats.skipped).toBe(1);
    });

    it('are cancelled, at once', async () => {
      const served = await serveTasks(boundary);
      await served.respond((tasks) => {
        tasks.add(() => {}).cancel();
        tasks.add(() => {}).cancel();
        tasks.add(() => {});
      });
      await room(served);
      expect(served.middleware.stats.cancelled).toBe(2);
    });
  });

  it('counts a task that waits for its retry', async () => {
    const { middleware, respond } = await serveTasks({ maxPending: 1, retries: { limit: 1, minDelay: 60_000 } });
    const begun = deferred();
    const handle = await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        throw error;
      }),
    );
    await begun.promise;
    await respond((tasks) => {
      expect(() => tasks.add(() => {})).toThrow(overloaded);
    });
    handle.cancel();
    await middleware.idle();
    await respond((tasks) => tasks.add(() => {}));
    await middleware.idle();
  });
});

/** A task that tells of its start and ends when the test wants it to. */
interface Gate {
  begun: Deferred<void>;
  released: Deferred<void>;
  run(): Promise<void>;
}

function gate(onBegin: () => void = () => {}): Gate {
  const begun = deferred();
  const released = deferred();
  return {
    begun,
    released,
    run() {
      onBegin();
      begun.resolve();
      return released.promise;
    },
  };
}

/** Lets all that can start do so. */
async function settle(): Promise<void> {
  for (let turn = 0; turn < 5; turn++) await setImmediate();
}

describe('promise 2: concurrency', () => {
  it('runs the tasks of so many responses at once, first finished first served', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 2 });
    const order: number[] = [];
    const gates = Array.from({ length: 5 }, (_, index) => gate(() => order.push(index)));
    for (const { run } of gates) await respond((tasks) => tasks.add(run));
    await settle();
    expect(order).toEqual([0, 1]);
    expect(middleware.stats).toMatchObject({ pending: 3, running: 2 });
    gates[1]?.released.resolve();
    await settle();
    expect(order).toEqual([0, 1, 2]);
    expect(middleware.stats).toMatchObject({ pending: 2, running: 2 });
    gates[2]?.released.resolve();
    gates[0]?.released.resolve();
    await settle();
    expect(order).toEqual([0, 1, 2, 3, 4]);
    gates[3]?.released.resolve();
    gates[4]?.released.resolve();
    await middleware.idle();
    expect(middleware.stats.succeeded).toBe(5);
  });

  it('starts with the response that is over first, whichever got a task first', async () => {
    const { middleware, open, respond } = await serveTasks({ concurrency: 1 });
    const order: string[] = [];
    const slow = await open((tasks) => tasks.add(() => order.push('added first')));
    await respond((tasks) => tasks.add(() => order.push('over first')));
    await settle();
    await slow.end();
    await middleware.idle();
    expect(order).toEqual(['over first', 'added first']);
  });

  it('holds the slot for the whole list as it was when others began to wait', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 1 });
    const order: string[] = [];
    const first = gate(() => order.push('a1'));
    await respond((tasks) => {
      tasks.add(first.run);
      tasks.add(() => {
        order.push('a2');
        tasks.add(() => order.push('behind b'));
      });
      tasks.add(() => order.push('a3'));
    });
    await respond((tasks) => {
      tasks.add(() => order.push('b1'));
      tasks.add(() => order.push('b2'));
    });
    await first.begun.promise;
    first.released.resolve();
    await middleware.idle();
    expect(order).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'behind b']);
  });

  it('never runs more than so many at once', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 3 });
    let running = 0;
    let most = 0;
    const answered = deferred();
    const work = async (): Promise<void> => {
      running++;
      most = Math.max(most, running);
      await answered.promise;
      await setImmediate();
      running--;
    };
    await Promise.all(
      Array.from({ length: 30 }, () =>
        respond((tasks) => {
          tasks.add(work);
          tasks.add(work);
        }),
      ),
    );
    await settle();
    answered.resolve();
    await middleware.idle();
    expect(most).toBe(3);
    expect(middleware.stats.succeeded).toBe(60);
  });

  it('takes no slot for a response without tasks, or one whose tasks wait for its end', async () => {
    const { middleware, respond, open } = await serveTasks({ concurrency: 1 });
    const { end } = await open((tasks) => tasks.add(() => {}));
    await respond(() => {});
    const handle = await respond((tasks) => tasks.add(() => 'ran'));
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'ran' });
    await end();
    await middleware.idle();
  });

  it('keeps the slot while a task waits for its retry', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 1, retries: { limit: 1, minDelay: 60_000 } });
    const failed = gate();
    failed.released.reject(error);
    const backingOff = await respond((tasks) => tasks.add(failed.run));
    await failed.begun.promise;
    const waiting = await respond((tasks) => tasks.add(() => {}));
    await settle();
    expect([backingOff.status, waiting.status]).toEqual(['running', 'pending']);
    backingOff.cancel();
    await middleware.idle();
    expect([backingOff.status, waiting.status]).toEqual(['cancelled', 'succeeded']);
  });

  it('lets a list that has ended wait for a slot again when a task is added late', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 1 });
    const order: string[] = [];
    const [, addLate] = await respond((tasks) => [
      tasks.add(() => order.push('first')),
      () => tasks.add(() => order.push('late')),
    ]);
    await middleware.idle();
    const other = gate(() => order.push('other'));
    await respond((tasks) => tasks.add(other.run));
    await other.begun.promise;
    await respond((tasks) => tasks.add(() => order.push('next')));
    const late = addLate?.() as TaskHandle;
    await settle();
    expect(late.status).toBe('pending');
    other.released.resolve();
    await middleware.idle();
    expect(order).toEqual(['first', 'other', 'next', 'late']);
  });

  it('serves a list whose only task was cancelled while it waited, and goes on', async () => {
    const { middleware, respond } = await serveTasks({ concurrency: 1 });
    const first = gate();
    await respond((tasks) => tasks.add(first.run));
    await first.begun.promise;
    const cancelled = await respond((tasks) => tasks.add(() => {}));
    const last = await respond((tasks) => tasks.add(() => 'ran'));
    expect(cancelled.cancel()).toBe(true);
    first.released.resolve();
    expect(await last.finished).toEqual({ status: 'succeeded', value: 'ran' });
    await middleware.idle();
  });

  describe('gives way between two tasks', () => {
    it('where a list goes on adding to itself', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      const others: string[] = [];
      const first = gate();
      await respond((tasks) => {
        const again = async (): Promise<void> => {
          await setImmediate();
          if (others.length < 3) tasks.add(again);
        };
        tasks.add(first.run);
        tasks.add(again);
      });
      await first.begun.promise;
      for (const name of ['a', 'b', 'c']) {
        await respond((tasks) => {
          tasks.add(() => others.push(`${name}1`));
          tasks.add(() => others.push(`${name}2`));
        });
      }
      first.released.resolve();
      await middleware.idle();
      expect(others).toEqual(['a1', 'a2', 'b1', 'b2', 'c1', 'c2']);
    });

    it('to those that waited already when a task was added, and to no others', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      const order: string[] = [];
      const push = (name: string): void => void order.push(name);
      const gates = [gate(() => push('a1')), gate(() => push('a2')), gate(() => push('b1'))] as const;
      const a = await respond((tasks) => {
        tasks.add(gates[0].run);
        tasks.add(gates[1].run);
        return tasks;
      });
      await gates[0].begun.promise;
      a.add(push, 'a3');
      await respond((tasks) => {
        tasks.add(gates[2].run);
        tasks.add(push, 'b2');
      });
      a.add(push, 'a4');
      a.add(push, 'a5');
      gates[0].released.resolve();
      await gates[1].begun.promise;
      await respond((tasks) => tasks.add(push, 'c1'));
      gates[1].released.resolve();
      await gates[2].begun.promise;
      a.add(push, 'a6');
      gates[2].released.resolve();
      await middleware.idle();
      expect(order).toEqual(['a1', 'a2', 'a3', 'b1', 'b2', 'c1', 'a4', 'a5', 'a6']);
    });

    it('not for what is added while its own response waits', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      const order: string[] = [];
      const push = (name: string): void => void order.push(name);
      const first = gate();
      await respond((tasks) => tasks.add(first.run));
      await first.begun.promise;
      const b = await respond((tasks) => {
        tasks.add(push, 'b1');
        return tasks;
      });
      await respond((tasks) => tasks.add(push, 'c1'));
      b.add(push, 'b2');
      first.released.resolve();
      await middleware.idle();
      expect(order).toEqual(['b1', 'b2', 'c1']);
    });

    it('not when nothing waits any more', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 2 });
      const order: string[] = [];
      const [first, second] = [gate(() => order.push('a1')), gate()];
      const a = await respond((tasks) => {
        tasks.add(first.run);
        return tasks;
      });
      await first.begun.promise;
      await respond((tasks) => tasks.add(second.run));
      await second.begun.promise;
      const waiting = await respond((tasks) => tasks.add(() => order.push('c1')));
      a.add(() => order.push('a2'));
      a.add(() => order.push('a3'));
      second.released.resolve();
      await waiting.finished;
      const third = gate(() => order.push('d1'));
      await respond((tasks) => tasks.add(third.run));
      await third.begun.promise;
      first.released.resolve();
      await settle();
      expect(order).toEqual(['a1', 'c1', 'd1', 'a2', 'a3']);
      third.released.resolve();
      await middleware.idle();
    });

    it('also where the task that comes behind the others was cancelled', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      const order: string[] = [];
      const first = gate();
      const a = await respond((tasks) => {
        tasks.add(first.run);
        return tasks;
      });
      await first.begun.promise;
      await respond((tasks) => tasks.add(() => order.push('b1')));
      a.add(() => order.push('a2')).cancel();
      a.add(() => order.push('a3'));
      first.released.resolve();
      await middleware.idle();
      expect(order).toEqual(['b1', 'a3']);
    });

    it('counts as running no more than one response', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      let running = 0;
      let most = 0;
      const work = async (): Promise<void> => {
        most = Math.max(most, ++running);
        await setImmediate();
        running--;
      };
      const first = gate();
      await respond((tasks) => tasks.add(first.run));
      await first.begun.promise;
      for (let response = 0; response < 5; response++) {
        await respond((tasks) => {
          const addTwo = async (): Promise<void> => {
            await work();
            tasks.add(work);
            tasks.add(work);
          };
          tasks.add(addTwo);
          tasks.add(addTwo);
        });
      }
      first.released.resolve();
      await middleware.idle();
      expect(most).toBe(1);
      expect(middleware.stats).toMatchObject({ pending: 0, running: 0, succeeded: 31 });
    });
  });

  describe('frees the slot when the tasks have', () => {
    const ends: [title: string, fn: () => unknown, status: string][] = [
      ['succeeded', () => {}, 'succeeded'],
      ['succeeded later', () => setImmediate(), 'succeeded'],
      [
        'thrown',
        () => {
          throw error;
        },
        'failed',
      ],
      ['rejected', () => Promise.reject(error), 'failed'],
      ['timed out', task('never', () => new Promise(() => {}), { timeout: 1 }), 'failed'],
      ['been skipped', task('skipped', () => {}, { when: () => false }), 'skipped'],
      ['been retried', task('retried', () => Promise.reject(error), { retries: { limit: 1, minDelay: 1 } }), 'failed'],
      [
        'failed by their "when"',
        task('bad when', () => {}, {
          when: () => {
            throw error;
          },
        }),
        'failed',
      ],
    ];
    it.each(ends)('%s', async (_title, fn, status) => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      for (let response = 0; response < 3; response++) {
        const handle = await respond((tasks) => tasks.add(fn));
        expect((await handle.finished).status).toBe(status);
      }
      await middleware.idle();
    });

    it('been cancelled', async () => {
      const { middleware, respond } = await serveTasks({ concurrency: 1 });
      for (let response = 0; response < 3; response++) {
        const running = gate();
        const handle = await respond((tasks) => tasks.add(running.run));
        await running.begun.promise;
        handle.cancel();
        running.released.reject(error);
        expect(await handle.finished).toEqual({ status: 'cancelled' });
        await respond((tasks) => tasks.add(() => {}).cancel());
      }
      await middleware.idle();
      expect(middleware.stats.cancelled).toBe(6);
    });
  });
});
