// What a subscriber of a tracing channel puts around a call.

import { AsyncLocalStorage } from 'node:async_hooks';
import { type Channel, tracingChannel } from 'node:diagnostics_channel';
import type { TaskTrace } from '../../lib/index';
import { callWithin, type Wrap } from '../../lib/task/wrap';
import { serveTasks } from '../fixtures/serve-tasks';

const { start } = tracingChannel('express-background-tasks:task') as unknown as { start: Channel };
const stops: (() => void)[] = [];
afterEach(() => {
  for (const stop of stops.splice(0)) stop();
});

function onStart(listener: (trace: TaskTrace) => void): void {
  const subscriber = (trace: unknown): void => listener(trace as TaskTrace);
  start.subscribe(subscriber);
  stops.push(() => start.unsubscribe(subscriber));
}

describe('the channel of attempts', () => {
  it('calls the attempt within the "wrap" that a subscriber of start has set', async () => {
    const store = new AsyncLocalStorage<string>();
    onStart((trace) => {
      trace.wrap = (fn) => store.run(trace.task.name, fn);
    });
    const { middleware, respond } = await serveTasks();
    const seen: unknown[] = [];
    const handle = await respond((tasks) =>
      tasks.add(async function mail() {
        seen.push(store.getStore());
        await Promise.resolve();
        seen.push(store.getStore());
        return 'sent';
      }),
    );
    await middleware.idle();
    expect(seen).toEqual(['mail', 'mail']);
    expect(await handle.finished).toEqual({ status: 'succeeded', value: 'sent' });
  });

  it('lets a second subscriber wrap what the first one has set', async () => {
    const calls: string[] = [];
    onStart((trace) => {
      trace.wrap = (fn) => {
        calls.push('inner');
        return fn();
      };
    });
    onStart((trace) => {
      const { wrap: inner = (fn) => fn() } = trace;
      trace.wrap = (fn) => {
        calls.push('outer');
        return inner(fn);
      };
    });
    const { middleware, respond } = await serveTasks();
    await respond((tasks) => tasks.add(() => calls.push('task')));
    await middleware.idle();
    expect(calls).toEqual(['outer', 'inner', 'task']);
  });
});

describe('callWithin', () => {
  it.each<[string, Wrap]>([
    ['drops the result', (fn) => void fn()],
    ['replaces the result', (fn) => [fn()]],
    ['calls it twice', (fn) => [fn(), fn()]],
    ['does not call it', () => undefined],
    ['calls it later', (fn) => setImmediate(fn)],
  ])('calls the function once and returns its result if "wrap" %s', async (_title, wrap) => {
    const fn = jest.fn(() => 'result');
    expect(callWithin(wrap, fn)).toBe('result');
    await new Promise(setImmediate);
    expect(fn).toHaveBeenCalledTimes(1);
  });

  it('throws what the function throws, also if "wrap" catches it', () => {
    const boom = new Error('boom');
    const fn = (): never => {
      throw boom;
    };
    expect(() => callWithin((call) => call(), fn)).toThrow(boom);
    const forgiving: Wrap = (call) => {
      try {
        return call();
      } catch {
        return 'fine';
      }
    };
    expect(() => callWithin(forgiving, fn)).toThrow(boom);
  });

  it.each<[string, Wrap]>([
    [
      'before the call',
      () => {
        throw new Error('of the subscriber');
      },
    ],
    [
      'after it',
      (fn) => {
        fn();
        throw new Error('of the subscriber');
      },
    ],
    ['since it is no function', 'nonsense' as unknown as Wrap],
  ])('warns of a "wrap" that fails %s, and the call goes on', (_title, wrap) => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const fn = jest.fn(() => 'result');
    expect(callWithin(wrap, fn)).toBe('result');
    expect(fn).toHaveBeenCalledTimes(1);
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('"wrap"'), 'BackgroundTasksWarning');
    warn.mockRestore();
  });

  it('warns of a failure of its own beside one of the function', () => {
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    const fn = (): never => {
      throw new Error('of the task');
    };
    const wrap: Wrap = (call) => {
      try {
        return call();
      } catch {
        throw new Error('of the subscriber');
      }
    };
    expect(() => callWithin(wrap, fn)).toThrow('of the task');
    expect(warn).toHaveBeenCalledWith(expect.stringContaining('of the subscriber'), 'BackgroundTasksWarning');
    warn.mockRestore();
  });
});
