// Attempts in a worker: the promises that `add` makes after a response hold there too.

import { AsyncLocalStorage } from 'node:async_hooks';
import { tracingChannel } from 'node:diagnostics_channel';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { givenUpError, MessageRunner, type StoredMessage } from '../../lib/engine/index.js';
import { WorkerGroup } from '../../lib/engine/worker-group.js';
import { after, currentTask, type Task, type TaskTrace, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

function message(name: string, args: unknown[] = [], more: Partial<StoredMessage> = {}): StoredMessage {
  return { id: 'id-1', name, args, attempt: 1, ...more };
}

function runnerOf(...tasks: Task[]): MessageRunner {
  return new MessageRunner(tasks, { onError: () => {} });
}

describe('promise 7: a worker', () => {
  it('runs a task with its arguments, synchronous or not', async () => {
    const runner = runnerOf(
      task('add', (a: number, b: number) => a + b),
      task('later', async (text: string) => {
        await sleep(1);
        return text;
      }),
    );
    expect(await runner.run(message('add', [1, 2]))).toEqual({ state: 'succeeded', result: 3 });
    expect(await runner.run(message('later', ['a']))).toEqual({ state: 'succeeded', result: 'a' });
  });

  it('awaits a thenable', async () => {
    const runner = runnerOf(
      task('a', () =>
        Object.defineProperty({}, 'then', { value: (resolve: (value: string) => void) => resolve('awaited') }),
      ),
    );
    expect(await runner.run(message('a'))).toEqual({ state: 'succeeded', result: 'awaited' });
  });

  it.each([[new Error('boom')], [undefined], ['text'], [null]])('keeps what was thrown: %p', async (error) => {
    const runner = runnerOf(
      task('throws', () => {
        throw error;
      }),
      task('rejects', () => Promise.reject(error)),
    );
    expect(await runner.run(message('throws'))).toEqual({ state: 'failed', error });
    expect(await runner.run(message('rejects'))).toEqual({ state: 'failed', error });
  });

  it('gives the task its context, and no response', async () => {
    const seen: unknown[] = [];
    const runner = runnerOf(
      task('a', async () => {
        await sleep(1);
        const context = currentTask();
        seen.push([context?.id, context?.name, context?.attempt, context?.signal.aborted]);
        after(() => {});
      }),
    );
    const outcome = await runner.run(message('a', [], { attempt: 3 }));
    expect(seen).toEqual([['id-1', 'a', 3, false]]);
    expect(outcome).toMatchObject({ state: 'failed', error: { code: 'ERR_NO_RESPONSE_CONTEXT' } });
    expect(currentTask()).toBeUndefined();
  });

  it('keeps the contexts of tasks that run side by side apart', async () => {
    const runner = runnerOf(
      task('a', async (delay: number) => {
        await sleep(delay);
        return currentTask()?.id;
      }),
    );
    const outcomes = await Promise.all([
      runner.run(message('a', [5], { id: 'slow' })),
      runner.run(message('a', [1], { id: 'fast' })),
    ]);
    expect(outcomes).toMatchObject([{ result: 'slow' }, { result: 'fast' }]);
  });

  it('publishes each attempt on the tracing channel', async () => {
    const traces: { event: string; trace: TaskTrace }[] = [];
    const on = (event: string) => (trace: unknown) => void traces.push({ event, trace: trace as TaskTrace });
    const subscribers = {
      start: on('start'),
      end: on('end'),
      asyncStart: on('asyncStart'),
      asyncEnd: on('asyncEnd'),
      error: on('error'),
    };
    const channel = tracingChannel<unknown, TaskTrace>('express-background-tasks:task');
    channel.subscribe(subscribers);
    const boom = new Error('boom');
    try {
      const runner = runnerOf(
        task('good', (text: string) => text.length),
        task('bad', () => Promise.reject(boom)),
      );
      await runner.run(message('good', ['four']));
      await runner.run(message('bad', [], { attempt: 2 }));
    } finally {
      channel.unsubscribe(subscribers);
    }
    expect(traces.map(({ event }) => event)).toEqual([
      'start',
      'end',
      'start',
      'end',
      'error',
      'asyncStart',
      'asyncEnd',
    ]);
    const of = { engine: 'unknown', message: { id: 'id-1', headers: {} } };
    expect(traces[0]?.trace).toEqual({
      ...of,
      task: { id: 'id-1', name: 'good', attempt: 1 },
      args: ['four'],
      result: 4,
    });
    expect(traces[2]?.trace).toEqual({ ...of, task: { id: 'id-1', name: 'bad', attempt: 2 }, args: [], error: boom });
  });

  it('runs a task in the context of the work() call, not of whoever received or enqueued it', async () => {
    const storage = new AsyncLocalStorage<string>();
    const runner = storage.run('working', () => runnerOf(task('a', async () => storage.getStore())));
    const outcome = await storage.run('received', () => runner.run(message('a')));
    expect(outcome).toMatchObject({ result: 'working' });
  });

  it('reports in the context of the work() call', () => {
    const storage = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    const onError = (): void => void seen.push(storage.getStore());
    const runner = storage.run('working', () => new MessageRunner([], { onError }));
    storage.run('received', () => runner.report({ id: 'id-1', name: 'a', attempt: 1 }, new Error('boom')));
    expect(seen).toEqual(['working']);
  });

  it('keeps a store that a synchronous task enters from the next task', async () => {
    const storage = new AsyncLocalStorage<string>();
    const runner = runnerOf(
      task('enters', () => storage.enterWith('entered')),
      task('looks', () => storage.getStore()),
    );
    const [, looks] = await Promise.all([runner.run(message('enters')), runner.run(message('looks'))]);
    expect(looks).toEqual({ state: 'succeeded', result: undefined });
    expect(storage.getStore()).toBeUndefined();
  });

  it('yields the event loop by time slice', async () => {
    let turns = 0;
    const count = setInterval(() => turns++, 0);
    const runner = new MessageRunner(
      [
        task('busy', () => {
          const end = performance.now() + 4;
          while (performance.now() < end);
        }),
      ],
      { concurrency: 100 },
    );
    await Promise.all(Array.from({ length: 30 }, () => runner.run(message('busy'))));
    clearInterval(count);
    expect(turns).toBeGreaterThanOrEqual(10);
  });
});

describe('a suspect', () => {
  it('begins once nothing else runs, is marked first, and nothing begins beside it', async () => {
    const gates = { a: deferred(), b: deferred() };
    const events: string[] = [];
    const runner = runnerOf(
      task('t', async (name: 'a' | 'b' | 'c') => {
        events.push(name);
        if (name !== 'c') await gates[name].promise;
        events.push(`${name} over`);
      }),
    );
    const first = runner.run(message('t', ['a']));
    await turn();
    await turn();
    const suspect = runner.run(message('t', ['b']), async () => {
      events.push('mark');
      return true;
    });
    const third = runner.run(message('t', ['c']));
    expect(runner.free).toBe(0);
    await sleep(5);
    expect(events).toEqual(['a']);
    gates.a.resolve();
    await first;
    await sleep(5);
    expect(events).toEqual(['a', 'a over', 'mark', 'b']);
    expect(runner.free).toBe(0);
    gates.b.resolve();
    await Promise.all([suspect, third]);
    expect(events).toEqual(['a', 'a over', 'mark', 'b', 'b over', 'c', 'c over']);
    expect(runner.free).toBe(10);
  });

  it.each([
    ['is not ours any more', async () => false],
    ['cannot be marked', () => Promise.reject(new Error('away'))],
  ])('that %s does not run', async (_title, beginAlone) => {
    const ran = jest.fn();
    const runner = runnerOf(task('t', ran));
    expect(await runner.run(message('t'), beginAlone)).toEqual({ state: 'unused' });
    expect(ran).not.toHaveBeenCalled();
    expect(await runner.run(message('t'))).toMatchObject({ state: 'succeeded' });
  });

  it('waits for nothing that its worker, or another one of its engine, has given back unbegun', async () => {
    const group = new WorkerGroup();
    const [first, second] = [1, 2].map(() => new MessageRunner([task('t', () => {})], {}, group));
    const unbegun = first?.run(message('t'));
    first?.dropAfter(Number.POSITIVE_INFINITY);
    expect(await unbegun).toEqual({ state: 'unused' });
    expect(await second?.run(message('t'), async () => true)).toMatchObject({ state: 'succeeded' });
  });

  it('whose worker closes while it is marked is given back', async () => {
    const marked = deferred<boolean>();
    const ran = jest.fn();
    const runner = runnerOf(task('t', ran));
    const run = runner.run(message('t'), () => marked.promise);
    await turn();
    await turn();
    runner.dropAfter(1);
    expect(await run).toEqual({ state: 'dropped' });
    marked.resolve(true);
    await runner.drained();
    await turn();
    expect(ran).not.toHaveBeenCalled();
  });
});

describe('the time limit', () => {
  const hang = (): Promise<never> => new Promise(() => {});

  it.each([
    ['of the message', { timeout: 20 }, undefined, 20],
    ['of the task where the message has none', {}, 25, 25],
    ['of the message over that of the task', { timeout: 20 }, 60_000, 20],
  ])('%s', async (_, more, timeout, expected) => {
    const options = timeout === undefined ? {} : { timeout };
    const runner = runnerOf(task('hang', hang, options));
    const outcome = await runner.run(message('hang', [], more));
    expect(outcome).toMatchObject({
      state: 'failed',
      error: { code: 'ERR_TASK_TIMEOUT', message: expect.stringContaining(`${expected} ms`) },
    });
    expect(runner.running).toBe(0);
  });

  it('aborts the signal; what the task does later is ignored', async () => {
    const late = deferred<string>();
    let signal: AbortSignal | undefined;
    const runner = runnerOf(
      task('late', () => {
        signal = currentTask()?.signal;
        return late.promise;
      }),
    );
    const outcome = await runner.run(message('late', [], { timeout: 10 }));
    late.resolve('too late');
    await sleep(1);
    expect(outcome.state).toBe('failed');
    expect(signal?.reason).toMatchObject({ name: 'TimeoutError' });
  });
});

describe('the tasks of a worker', () => {
  it.each([
    ['a plain function', () => {}],
    ['a remote task, whose handler lives elsewhere', task('remote')],
    ['undefined', undefined],
    ['a name', 'send-mail'],
  ])('%s is refused with ERR_INVALID_TASK', (_, given) => {
    expect(() => new MessageRunner([given as unknown as Task])).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_TASK',
        message: 'work(): the tasks must be made by task(name, handler)',
      }),
    );
  });

  it.each([[undefined], [new Set()], [task('a', () => {})]])('are refused if they are no array: %p', (tasks) => {
    expect(() => new MessageRunner(tasks as unknown as Task[])).toThrow(
      expect.objectContaining({
        code: 'ERR_INVALID_TASK',
        message: expect.stringContaining('work(): the tasks must be an array, not '),
      }),
    );
  });

  it.each([
    [{ concurrency: 0 }, 'work(): "concurrency" must be a whole number from 1'],
    [{ concurrency: 1.5 }, '"concurrency"'],
    [{ logger: {} }, '"logger"'],
    [{ onError: 'log' }, '"onError"'],
    [{ threads: 2 }, 'unknown option "threads"'],
    [null, 'must be an object'],
  ])('the options %p are refused with ERR_INVALID_OPTION', (options, text) => {
    expect(() => new MessageRunner([], options as object)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(text) }),
    );
  });

  it('are known by name, and ten run at the same time by default', () => {
    const runner = new MessageRunner([task('a', () => {}), task('b', () => {})]);
    expect(runner.names).toEqual(['a', 'b']);
    expect([runner.knows('b'), runner.knows('c')]).toEqual([true, false]);
    expect(runner.concurrency).toBe(10);
    expect(new MessageRunner([], { concurrency: Number.POSITIVE_INFINITY }).concurrency).toBe(Number.POSITIVE_INFINITY);
  });

  it('two of one name are refused with ERR_INVALID_TASK', () => {
    expect(() => new MessageRunner([task('a', () => {}), task('a', () => {})])).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_TASK', message: 'work(): two tasks are named "a"' }),
    );
  });

  it('one that is not among them fails with ERR_UNKNOWN_TASK', async () => {
    expect(await runnerOf().run(message('c'))).toMatchObject({
      state: 'failed',
      error: { code: 'ERR_UNKNOWN_TASK', message: expect.stringContaining('"c"') },
    });
  });
});

describe('reports', () => {
  const info = { id: 'id-1', name: 'a', attempt: 2 };

  it('go to onError, with the task and nothing else', async () => {
    const onError = jest.fn();
    const boom = new Error('boom');
    new MessageRunner([], { onError }).report(info, boom);
    expect(onError.mock.calls).toEqual([[boom, { task: info, args: [] }]]);
  });

  it('go to the logger where there is no onError', async () => {
    const error = jest.fn();
    const boom = new Error('boom');
    new MessageRunner([], { logger: { error } }).report(info, boom);
    expect(error.mock.calls).toEqual([[{ err: boom, task: info }, 'Background task "a" failed after 2 attempts']]);
  });

  it('are waited for, and whatever goes wrong with them stays in the logger', async () => {
    const error = jest.fn();
    const hookError = new Error('the hook');
    const onError = async (): Promise<void> => {
      await sleep(1);
      throw hookError;
    };
    const runner = new MessageRunner([], { onError, logger: { error } });
    runner.report(info, 'thrown');
    runner.report(info, 'thrown');
    await runner.reported();
    expect(error.mock.calls.filter(([context]) => context.err === hookError)).toHaveLength(2);
    await runner.reported();
  });

  it('leave no timer behind once they have been taken', async () => {
    const waiting = trackTimeouts();
    const runner = new MessageRunner([], { onError: () => turn() });
    runner.report(info, 'thrown');
    await runner.reported();
    expect(waiting()).toBe(0);
  });

  it('are not waited for longer than 4.5 s', async () => {
    jest.useFakeTimers();
    const runner = new MessageRunner([], { onError: () => new Promise(() => {}) });
    runner.report(info, 'thrown');
    let isOver = false;
    const over = runner.reported().then(() => {
      isOver = true;
    });
    await jest.advanceTimersByTimeAsync(4499);
    expect(isOver).toBe(false);
    await jest.advanceTimersByTimeAsync(1);
    await over;
    jest.useRealTimers();
  });

  it('of a store that fails go to the logger, at most once a minute, whatever the text', async () => {
    const error = jest.fn();
    const onError = jest.fn();
    const now = jest.spyOn(performance, 'now').mockReturnValue(0);
    const runner = new MessageRunner([], { onError, logger: { error } });
    const [refused, denied] = [new Error('refused'), new Error('denied')];
    for (const reason of [refused, new Error('refused'), denied, refused]) runner.storeFailed(reason);
    now.mockReturnValue(59_999);
    runner.storeFailed(denied);
    now.mockReturnValue(60_000);
    runner.storeFailed(denied);
    runner.storeFailed(refused);
    await runner.reported();
    const message = 'A worker of background tasks cannot reach its store, and tries again';
    expect(error.mock.calls).toEqual([refused, denied].map((err) => [{ err }, message]));
    expect(onError).not.toHaveBeenCalled();
  });

  it('of schedules that fail come once a minute for each of them', async () => {
    const error = jest.fn();
    const runner = new MessageRunner([], { logger: { error } });
    for (const name of ['a', 'b', 'a', 'b']) runner.scheduleFailed(name, new Error('no'));
    await runner.reported();
    expect(error.mock.calls.map(([, line]) => line)).toEqual([
      'The schedule "a" of background tasks enqueues nothing',
      'The schedule "b" of background tasks enqueues nothing',
    ]);
  });

  it('of unknown tasks are made once for each', async () => {
    const onError = jest.fn();
    const runner = new MessageRunner([], { onError });
    for (const id of ['1', '2', '1', '1', '2']) runner.reportUnknown({ id, name: 'c', attempt: 0 });
    expect(onError.mock.calls.map(([, context]) => context.task.id)).toEqual(['1', '2']);
    expect(onError.mock.calls[0]?.[0]).toMatchObject({ code: 'ERR_UNKNOWN_TASK' });
  });

  it('of unknown tasks fill no log: a line for each name, and once a minute how many more there were', async () => {
    const error = jest.fn();
    const now = jest.spyOn(performance, 'now').mockReturnValue(0);
    const runner = new MessageRunner([], { logger: { error } });
    for (let id = 0; id < 100; id++) runner.reportUnknown({ id: `c${id}`, name: 'c', attempt: 0 });
    runner.reportUnknown({ id: 'd', name: 'd', attempt: 0 });
    now.mockReturnValue(60_000);
    runner.reportUnknown({ id: 'c100', name: 'c', attempt: 0 });
    await runner.reported();
    const line = (name: string) => `no worker here knows the task "${name}": pass it to work()`;
    expect(error.mock.calls[0]).toEqual([
      { err: expect.objectContaining({ code: 'ERR_UNKNOWN_TASK' }), task: { id: 'c0', name: 'c', attempt: 0 } },
      `Background task "c" waits: ${line('c')}`,
    ]);
    expect(error.mock.calls.map(([{ err }]) => err.message)).toEqual([
      line('c'),
      line('d'),
      `${line('c')} (99 more like it since the last report)`,
    ]);
  });

  it('of unknown tasks are remembered for the last ten thousand at most', async () => {
    const onError = jest.fn();
    const runner = new MessageRunner([], { onError });
    for (let id = 0; id <= 10_000; id++) runner.reportUnknown({ id: String(id), name: 'c', attempt: 0 });
    runner.reportUnknown({ id: '0', name: 'c', attempt: 0 });
    expect(onError).toHaveBeenCalledTimes(10_002);
  });

  it('remember so many names at most, too', async () => {
    const error = jest.fn();
    const runner = new MessageRunner([], { logger: { error } });
    for (let index = 0; index <= 10_000; index++) {
      runner.reportUnknown({ id: `first ${index}`, name: `name ${index}`, attempt: 0 });
      runner.scheduleFailed(`schedule ${index}`, new Error('no'));
    }
    for (const index of [10_000, 0]) {
      runner.reportUnknown({ id: `second ${index}`, name: `name ${index}`, attempt: 0 });
      runner.scheduleFailed(`schedule ${index}`, new Error('no'));
    }
    await runner.reported();
    const lines = error.mock.calls.map(([, line]) => String(line));
    expect(lines.filter((line) => line.includes('"name 0" waits'))).toHaveLength(2);
    expect(lines.filter((line) => line.includes('"name 10000" waits'))).toHaveLength(1);
    expect(lines.filter((line) => line.includes('schedule "schedule 0"'))).toHaveLength(2);
    expect(lines.filter((line) => line.includes('schedule "schedule 10000"'))).toHaveLength(1);
  });

  it.each([
    ['["a",1]', ['a', 1]],
    ['"a"', []],
    ['[', []],
    [undefined, []],
  ])('have the arguments as they are stored, if they are a list: %s', (json, args) => {
    const onError = jest.fn();
    new MessageRunner([], { onError }).report({ id: '1', name: 'a', attempt: 1, json }, new Error('no'));
    expect(onError.mock.calls[0]?.[1].args).toEqual(args);
  });

  it('of tasks whose workers died say how often', () => {
    expect(givenUpError('a', 2)).toMatchObject({
      code: 'ERR_TASK_ABANDONED',
      message: 'task "a" was given up: its worker died while it ran alone, 2 times',
    });
  });
});

describe('closing', () => {
  beforeEach(fakeTimeouts);

  async function untilBegun(): Promise<void> {
    await turn();
    await turn();
  }

  it('is over at once where nothing runs', async () => {
    const runner = runnerOf();
    runner.dropAfter(0);
    await runner.drained();
    expect(jest.getTimerCount()).toBe(0);
  });

  it('waits for all that runs, and then keeps no timer', async () => {
    const gates = [deferred(), deferred()];
    const runner = runnerOf(task('a', (index: number) => gates[index]?.promise));
    const runs = [runner.run(message('a', [0])), runner.run(message('a', [1], { timeout: 5000 }))];
    await untilBegun();
    let isDrained = false;
    runner.dropAfter(10_000);
    const drained = runner.drained().then(() => {
      isDrained = true;
    });
    expect(runner.running).toBe(2);
    gates[1]?.resolve();
    await runs[1];
    await turn();
    expect(isDrained).toBe(false);
    gates[0]?.resolve();
    await drained;
    expect(await Promise.all(runs)).toMatchObject([{ state: 'succeeded' }, { state: 'succeeded' }]);
    expect(jest.getTimerCount()).toBe(0);
  });

  it('Infinity sets no limit; all that wait are told', async () => {
    const gate = deferred();
    const runner = runnerOf(task('a', () => gate.promise));
    const run = runner.run(message('a'));
    await untilBegun();
    runner.dropAfter(Number.POSITIVE_INFINITY);
    const drained = [runner.drained(), runner.drained()];
    expect(jest.getTimerCount()).toBe(0);
    gate.resolve();
    await Promise.all(drained);
    expect(await run).toMatchObject({ state: 'succeeded' });
  });

  it('gives back what has not begun, and begins nothing more', async () => {
    const ran = jest.fn();
    const runner = runnerOf(task('a', ran));
    const waiting = runner.run(message('a'));
    runner.dropAfter(10_000);
    expect(await waiting).toEqual({ state: 'unused' });
    expect(await runner.run(message('a'))).toEqual({ state: 'unused' });
    await runner.drained();
    await untilBegun();
    expect(ran).not.toHaveBeenCalled();
    expect([runner.free, jest.getTimerCount()]).toEqual([0, 0]);
  });

  it('at the shortest timeout aborts what still runs and gives it back; a late end is ignored', async () => {
    const gate = deferred();
    const signals: (AbortSignal | undefined)[] = [];
    const runner = runnerOf(
      task('a', () => {
        signals.push(currentTask()?.signal);
        return gate.promise;
      }),
    );
    const runs = [runner.run(message('a')), runner.run(message('a', [], { timeout: 60_000 }))];
    await untilBegun();
    runner.dropAfter(50_000);
    runner.dropAfter(10_000);
    runner.dropAfter(20_000);
    const drained = runner.drained();
    jest.advanceTimersByTime(10_000);
    await drained;
    expect(await Promise.all(runs)).toEqual([{ state: 'dropped' }, { state: 'dropped' }]);
    for (const signal of signals) {
      expect(signal?.reason).toMatchObject({
        code: 'ERR_TASK_ABANDONED',
        message: `task "a" was given back: the worker's close() reached its timeout of 10000 ms`,
      });
    }
    gate.resolve();
    await turn();
    expect(runner.running).toBe(0);
    expect(jest.getTimerCount()).toBe(0);
  });
});
