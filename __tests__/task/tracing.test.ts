// Promise 15, held against what Node's own TracingChannel publishes for the same functions.

import { AsyncLocalStorage } from 'node:async_hooks';
import { type Channel, type TracingChannel, tracingChannel } from 'node:diagnostics_channel';
import { setImmediate, setTimeout as sleep } from 'node:timers/promises';
import type { Request, Response } from 'express';
import { currentTask, type TaskInfo, type TaskTrace, task } from '../../lib/index';
import { AddedTask } from '../../lib/response/added-task';
import { Attempt } from '../../lib/task/attempt';
import { Call } from '../../lib/task/call';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';

type EventName = 'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error';
const eventNames: EventName[] = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'];

/** The channels of a TracingChannel, which its type keeps for itself. */
function channelsOf(traced: TracingChannel): Record<EventName, Channel> {
  return traced as unknown as Record<EventName, Channel>;
}

interface TraceEvent {
  name: EventName;
  context: TaskTrace;
  /** The keys that the context had at that moment. */
  keys: string[];
}

const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
  jest.restoreAllMocks();
});

/** Records the events of a channel until the end of the test, or until `stop`. */
function record(traced: TracingChannel, names = eventNames): { events: TraceEvent[]; stop(): void } {
  const events: TraceEvent[] = [];
  const channels = channelsOf(traced);
  const listeners = names.map((name) => ({
    name,
    listener: (context: unknown) => {
      events.push({ name, context: context as TaskTrace, keys: Object.keys(context as TaskTrace).sort() });
    },
  }));
  for (const { name, listener } of listeners) channels[name].subscribe(listener);
  const stop = (): void => {
    for (const { name, listener } of listeners) channels[name].unsubscribe(listener);
  };
  stops.push(stop);
  return { events, stop };
}

const channel = tracingChannel('express-background-tasks:task');
const { start } = channelsOf(channel);
const namesOf = (events: TraceEvent[]): EventName[] => events.map(({ name }) => name);

/** The keys of Node's context beside those that the caller gave. */
function shapes(events: TraceEvent[], own: string[]): string[][] {
  return events.map(({ keys }) => keys.filter((key) => !own.includes(key)));
}

const boom = new Error('boom');
const functions: [title: string, isAsync: boolean, fn: (arg: number) => unknown][] = [
  ['a function that returns', false, (arg) => arg + 1],
  ['a function that returns nothing', false, () => {}],
  [
    'a function that throws',
    false,
    () => {
      throw boom;
    },
  ],
  ['an async function that resolves', true, async (arg) => arg + 1],
  [
    'an async function that resolves later',
    true,
    async (arg) => {
      await sleep(1);
      return arg;
    },
  ],
  [
    'an async function that rejects',
    true,
    async () => {
      throw boom;
    },
  ],
  [
    'an async function that rejects later',
    true,
    async () => {
      await sleep(1);
      throw boom;
    },
  ],
  [
    // Node 26 calls then() at once, and so tells of the end of a thenable that resolves within it before that of the call.
    'a function that returns a thenable',
    true,
    // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
    () => ({ then: (resolve: (value: string) => void) => queueMicrotask(() => resolve('x')) }),
  ],
];

describe('promise 15: observable', () => {
  describe.each(functions)('%s', (_title, isAsync, fn) => {
    it('publishes the events of Node’s own TracingChannel, in its order', async () => {
      const nodes = tracingChannel(`nodes-own-${Math.random()}`);
      const { events: expected } = record(nodes);
      const context: { [own: string]: unknown; result?: unknown; error?: unknown } = {
        task: 0,
        args: 0,
        req: 0,
        res: 0,
      };
      try {
        if (isAsync) await (nodes.tracePromise as (...args: unknown[]) => unknown)(fn, context, undefined, 1);
        else nodes.traceSync(fn as never, context, undefined, 1 as never);
      } catch {
        // It is published.
      }

      const { middleware, respond } = await serveTasks();
      const { events } = record(channel);
      await respond((tasks) => tasks.add(fn, 1));
      await middleware.idle();

      expect(namesOf(events)).toEqual(namesOf(expected));
      expect(new Set(events.map((event) => event.context)).size).toBe(1);
      const own = ['task', 'args', 'req', 'res'];
      expect(shapes(events, own)).toEqual(shapes(expected, own));
      expect(events[0]?.context.result).toBe(context.result);
      expect(events[0]?.context.error).toBe(context.error);
    });

    it('runs in the stores bound to the channel, and so do the subscribers to its end', async () => {
      const store = new AsyncLocalStorage<string>();
      start.bindStore(store, (context) => (context as TaskTrace).task.id);
      stops.push(() => start.unbindStore(store));
      const { middleware, respond } = await serveTasks();
      const { events } = record(channel);
      const seen: unknown[] = [];
      for (const name of eventNames) {
        const listener = (): void => {
          seen.push(store.getStore());
        };
        channelsOf(channel)[name].subscribe(listener);
        stops.push(() => channelsOf(channel)[name].unsubscribe(listener));
      }
      let inside: unknown;
      const { id } = await respond((tasks) =>
        tasks.add((arg: number) => {
          inside = store.getStore();
          return fn(arg);
        }, 1),
      );
      await middleware.idle();

      expect(inside).toBe(id);
      expect(seen).toEqual(events.map(() => id));
    });
  });

  it('gives the subscribers the task, its arguments, the request and the response', async () => {
    const { middleware, respond } = await serveTasks();
    const { events } = record(channel);
    const args = [{ a: 1 }, 'b'];
    let req: Request | undefined;
    let res: Response | undefined;
    const handle = await respond((tasks, response) => {
      res = response;
      req = response.req;
      return tasks.add(
        task('named', (..._args: unknown[]) => {}),
        ...args,
      );
    });
    await middleware.idle();

    const [event] = events;
    expect(event?.keys).toEqual(['args', 'req', 'res', 'task']);
    expect(event?.context.task).toEqual({ id: handle.id, name: 'named', attempt: 1 });
    expect(event?.context.args).toEqual(args);
    expect(event?.context.args[0]).toBe(args[0]);
    expect(event?.context.req === req && req !== undefined).toBe(true);
    expect(event?.context.res === res && res !== undefined).toBe(true);
  });

  it('lets the subscribers see the task as the current one, and the stores of its add()', async () => {
    const request = new AsyncLocalStorage<string>();
    const { middleware, respond } = await serveTasks();
    const seen: unknown[] = [];
    for (const name of eventNames) {
      const listener = (): void => {
        seen.push([currentTask()?.id, request.getStore()]);
      };
      channelsOf(channel)[name].subscribe(listener);
      stops.push(() => channelsOf(channel)[name].unsubscribe(listener));
    }
    const { id } = await respond((tasks) =>
      request.run('of the add', () =>
        tasks.add(async () => {
          await sleep(1);
          throw boom;
        }),
      ),
    );
    await middleware.idle();
    expect(seen).toEqual(Array(5).fill([id, 'of the add']));
  });

  it('publishes the end of an attempt that timed out at the timeout, and nothing when it settles later', async () => {
    const { middleware, respond } = await serveTasks({ timeout: 5 });
    const { events } = record(channel);
    const late = deferred();
    await respond((tasks) => tasks.add(() => late.promise));
    await middleware.idle();
    const expected = ['start', 'end', 'error', 'asyncStart', 'asyncEnd'];
    expect(namesOf(events)).toEqual(expected);
    expect(events[0]?.context.error).toMatchObject({ code: 'ERR_TASK_TIMEOUT' });

    late.resolve();
    await sleep(1);
    expect(namesOf(events)).toEqual(expected);
    expect(events[0]?.context).not.toHaveProperty('result');
  });

  it('says of an attempt that failed whether it was cancelled', async () => {
    const { middleware, respond } = await serveTasks();
    const { events } = record(channel, ['asyncEnd']);
    const begun = deferred();
    const untilAborted = (): Promise<void> =>
      new Promise((_resolve, reject) => {
        const signal = currentTask()?.signal;
        signal?.addEventListener('abort', () => reject(signal.reason));
        begun.resolve();
      });
    const handle = await respond((tasks) => {
      tasks.add(() => Promise.reject(boom));
      return tasks.add(untilAborted);
    });
    await begun.promise;
    handle.cancel();
    await middleware.idle();
    expect(events.map(({ context }) => [context.cancelled, context.error])).toEqual([
      [undefined, boom],
      [true, expect.objectContaining({ name: 'AbortError' })],
    ]);
  });

  it('says so of one that was cancelled before it began, too', () => {
    const { events } = record(channel, ['end']);
    const attempt = new Attempt({ id: 'id-1', name: 'late' }, 1, { response: undefined, enqueuer: undefined });
    attempt.cancel();
    const call = new Call(() => {
      throw attempt.signal.reason;
    }, []);
    const trace = (info: TaskInfo): TaskTrace => ({ task: info, args: [] });
    const limits = { timeout: Number.POSITIVE_INFINITY, isElsewhere: false };
    attempt.run({ call, trace }, limits, { attemptOver: () => {}, progressed: () => {} });
    expect(events.map(({ context }) => context.cancelled)).toEqual([true]);
  });

  it('takes one that was cancelled and then given up for a failure, as the report does', async () => {
    const { middleware, respond } = await serveTasks();
    const { events } = record(channel, ['asyncEnd']);
    const begun = deferred();
    const handle = await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        return new Promise(() => {});
      }),
    );
    await begun.promise;
    handle.cancel();
    await middleware.close({ timeout: 0 });
    expect(events.map(({ context }) => [context.cancelled, context.error])).toEqual([
      [undefined, expect.objectContaining({ code: 'ERR_TASK_ABANDONED' })],
    ]);
  });

  it('publishes the end of an attempt that was abandoned, in the stores bound to the channel', async () => {
    const store = new AsyncLocalStorage<string>();
    start.bindStore(store, (context) => (context as TaskTrace).task.id);
    stops.push(() => start.unbindStore(store));
    const { middleware, respond } = await serveTasks();
    const { events } = record(channel);
    let storeAtEnd: unknown;
    const listener = (): void => {
      storeAtEnd = store.getStore();
    };
    channelsOf(channel).asyncEnd.subscribe(listener);
    stops.push(() => channelsOf(channel).asyncEnd.unsubscribe(listener));
    const begun = deferred();
    const late = deferred();
    const { id } = await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        return late.promise;
      }),
    );
    await begun.promise;
    await middleware.close({ timeout: 0 });
    const expected = ['start', 'end', 'error', 'asyncStart', 'asyncEnd'];
    expect(namesOf(events)).toEqual(expected);
    expect(events[0]?.context.error).toMatchObject({ code: 'ERR_TASK_ABANDONED' });
    expect(storeAtEnd).toBe(id);

    late.reject(boom);
    await sleep(1);
    expect(namesOf(events)).toEqual(expected);
  });

  it('publishes each attempt with a context object of its own', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 2, minDelay: 1 } });
    const { events } = record(channel);
    await respond((tasks) =>
      tasks.add(() => {
        const attempt = currentTask()?.attempt;
        if (attempt === 1) throw boom; // Not awaited.
        if (attempt === 2) return Promise.reject(boom);
        return 'third time lucky';
      }),
    );
    await middleware.idle();
    expect(events.map(({ name, context }) => `${context.task.attempt} ${name}`)).toEqual([
      '1 start',
      '1 error',
      '1 end',
      '2 start',
      '2 end',
      '2 error',
      '2 asyncStart',
      '2 asyncEnd',
      '3 start',
      '3 end',
    ]);
    const contexts = [...new Set(events.map(({ context }) => context))];
    expect(contexts.map(({ error, result }) => [error, result])).toEqual([
      [boom, undefined],
      [boom, undefined],
      [undefined, 'third time lucky'],
    ]);
    expect(new Set(contexts.map((context) => context.task.id)).size).toBe(1);
  });

  it('publishes an attempt once, also when the task is abandoned while it waits for the next one', async () => {
    const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 60_000 } });
    const { events } = record(channel);
    const begun = deferred();
    await respond((tasks) =>
      tasks.add(async () => {
        begun.resolve();
        throw boom;
      }),
    );
    await begun.promise;
    await setImmediate();
    const { abandoned } = await middleware.close({ timeout: 0 });
    expect(abandoned).toHaveLength(1);
    expect(namesOf(events)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
    expect(events[0]?.context.error).toBe(boom);
  });

  it.each(eventNames)('publishes to a subscriber of the channel "%s" alone', async (name) => {
    const { middleware, respond } = await serveTasks();
    const { events } = record(channel, [name]);
    await respond((tasks) => tasks.add(() => Promise.reject(boom)));
    await middleware.idle();
    expect(namesOf(events)).toEqual([name]);
  });

  it('makes no context object without subscribers', async () => {
    const trace = jest.spyOn(AddedTask.prototype, 'trace');
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => {
      tasks.add(() => {});
      tasks.add(async () => {});
    });
    await middleware.idle();
    expect(trace).not.toHaveBeenCalled();

    record(channel);
    await respond((tasks) => tasks.add(() => {}));
    await middleware.idle();
    expect(trace).toHaveBeenCalledTimes(1);
  });

  it('tells a late subscriber of the attempts that begin after it', async () => {
    const { middleware, respond } = await serveTasks();
    const begun = deferred();
    const released = deferred();
    await respond((tasks) => {
      tasks.add(() => {
        begun.resolve();
        return released.promise;
      });
      tasks.add(function next() {});
    });
    await begun.promise;
    const { events } = record(channel);
    released.resolve();
    await middleware.idle();
    expect(events.map(({ name, context }) => `${context.task.name} ${name}`)).toEqual(['next start', 'next end']);
  });

  it('goes on when the subscriber leaves midway', async () => {
    const { middleware, respond, reports } = await serveTasks();
    const { events, stop } = record(channel);
    const begun = deferred();
    const released = deferred();
    const handle = await respond((tasks) =>
      tasks.add(() => {
        begun.resolve();
        return released.promise;
      }),
    );
    await begun.promise;
    stop();
    released.reject(boom);
    await middleware.idle();
    expect(namesOf(events)).toEqual(['start', 'end']);
    expect(handle.status).toBe('failed');
    expect(reports).toHaveLength(1);
  });

  it('no longer refers to the response once the task is over', async () => {
    const { middleware, respond } = await serveTasks();
    const handle = await respond((tasks) => tasks.add((_arg: number) => {}, 1));
    await middleware.idle();
    if (!(handle instanceof AddedTask)) throw new Error('add() returns an AddedTask');
    const info = { id: handle.id, name: handle.name, attempt: 1 };
    expect(handle.trace(info)).toEqual({ task: info, args: [] });
  });

  it('publishes nothing for tasks that never begin', async () => {
    const { middleware, respond, open } = await serveTasks({ when: 'success' });
    const { events } = record(channel);
    await respond((tasks, res) => {
      tasks.add(() => {});
      res.status(500);
    });
    await respond((tasks) => tasks.add(() => {}).cancel());
    await middleware.idle();
    const { end } = await open((tasks) => tasks.add(() => {}));
    await middleware.close({ timeout: 0 });
    await end();
    expect(middleware.stats).toMatchObject({ skipped: 1, cancelled: 1, abandoned: 1 });
    expect(events).toEqual([]);
  });
});
