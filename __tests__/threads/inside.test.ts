// What a thread holds for the task that it runs. In this process, where the coverage sees it; the real threads are in the other
// suites.

import { setTimeout as sleep } from 'node:timers/promises';
import type * as Clock from '../../lib/clock';
import { currentTask } from '../../lib/index';
import { scope } from '../../lib/task/scope';
import { Call } from '../../lib/threads/call';
import { isSurelyClonable } from '../../lib/threads/clonable';
import { Pool } from '../../lib/threads/pool';
import { abortReasons, Slots } from '../../lib/threads/slots';
import { ThreadTask } from '../../lib/threads/thread-task';
import { workerFile } from '../../lib/threads/worker-file';

/** What the monotonic clock says, where a test sets it. */
let mockTime: number | undefined;

jest.mock('../../lib/clock', () => {
  const clock = jest.requireActual<typeof Clock>('../../lib/clock');
  return { ...clock, monotonicTime: () => mockTime ?? clock.monotonicTime() };
});

afterEach(() => {
  mockTime = undefined;
});

function begin(slots = Slots.for(1)) {
  const reports: unknown[] = [];
  const info = { id: 'id-1', name: 'resize', attempt: 2 };
  return { slots, reports, task: new ThreadTask(info, slots, 0, (json) => void reports.push(JSON.parse(json))) };
}

describe('the task of a thread', () => {
  it('is what currentTask() returns there, and what JSON shows of it is its info', () => {
    const { task } = begin();
    expect(scope.run(task, currentTask)).toBe(task);
    expect(JSON.parse(JSON.stringify(task))).toEqual({ id: 'id-1', name: 'resize', attempt: 2 });
    expect(task).toMatchObject({ response: undefined, enqueuer: undefined });
  });

  it('reports twenty values at once, then the last one after a while, and none after its end', async () => {
    mockTime = 0;
    const { task, reports } = begin();
    for (let number = 1; number <= 50; number++) task.progress(number);
    expect(reports).toEqual(Array.from({ length: 20 }, (_, index) => index + 1));
    while (reports.length === 20) await sleep(5);
    expect(reports.at(-1)).toBe(50);
    mockTime = 60;
    task.progress(51);
    expect(reports.at(-1)).toBe(51);
    for (let number = 52; number <= 100; number++) task.progress(number);
    expect(task.end()).toBe('100');
    task.progress(101);
    await sleep(60);
    expect(reports).not.toContain(100);
    expect(task.end()).toBe('100');
  });

  it('keeps their order: what was held back does not follow what was sent after it', async () => {
    mockTime = 0;
    const { task, reports } = begin();
    for (let number = 1; number <= 21; number++) task.progress(number);
    mockTime = 60; // The thread does not yield.
    task.progress(22);
    await sleep(60);
    expect(reports.slice(20)).toEqual([22]);
  });

  it('has reported nothing where what it reported is no JSON', () => {
    const { task, reports } = begin();
    task.progress(undefined);
    expect(task.end()).toBeUndefined();
    expect(reports).toEqual([]);
  });
});

describe('the signal of a thread', () => {
  it.each([
    [abortReasons.timeout, { name: 'TimeoutError', message: 'The task did not end within its time limit' }],
    [abortReasons.cancelled, { name: 'AbortError', message: 'The task was cancelled' }],
    [abortReasons.abandoned, { code: 'ERR_TASK_ABANDONED', message: 'task "resize" was abandoned' }],
  ])('is aborted as the shared memory says: %p', async (reason, expected) => {
    const { task, slots } = begin();
    const { signal } = task;
    expect(task.signal).toBe(signal);
    expect([signal.aborted, signal.reason]).toEqual([false, undefined]);
    signal.throwIfAborted();
    const event = new Promise((resolve) => signal.addEventListener('abort', resolve));
    slots.abort(0, reason);
    expect(signal.aborted).toBe(true);
    expect(signal.reason).toMatchObject(expected);
    expect(() => signal.throwIfAborted()).toThrow(expect.objectContaining(expected));
    await event;
    expect(AbortSignal.any([signal]).reason).toBe(signal.reason);
    task.end();
  });

  it('is aborted from the start where the task is late to ask', async () => {
    const { task, slots } = begin();
    slots.abort(0, abortReasons.cancelled);
    expect(task.signal.aborted).toBe(true);
    await new Promise((resolve) => task.signal.addEventListener('abort', resolve));
  });

  it("stays as it is after the end: the memory is another task's then", async () => {
    const { task, slots } = begin();
    const { signal } = task;
    task.end();
    const next = begin(slots);
    const event = new Promise((resolve) => next.task.signal.addEventListener('abort', resolve));
    slots.abort(0, abortReasons.cancelled);
    await event;
    expect([signal.aborted, next.task.signal.aborted]).toEqual([false, true]);
  });
});

it('a signal that is asked for after the end of its task says nothing of the next one', async () => {
  const { task, slots } = begin();
  task.end();
  const { signal } = task;
  const next = begin(slots);
  const event = new Promise((resolve) => next.task.signal.addEventListener('abort', resolve));
  slots.abort(0, abortReasons.cancelled);
  await event;
  expect([signal.aborted, next.task.signal.aborted]).toEqual([false, true]);
});

describe('the shared memory', () => {
  it('says which thread runs a call, until the next call begins', () => {
    const slots = Slots.for(2);
    slots.take(1, 5);
    expect(slots.begin(1, 4, 6)).toBe(false); // Of a thread that is late: the slot was the fourth call's.
    expect(slots.hasBegun(1, 5)).toBe(false);
    expect(slots.begin(1, 5, 7)).toBe(true);
    slots.abort(1, abortReasons.timeout);
    expect([slots.hasBegun(1, 5), slots.threadOf(1), slots.reasonOf(0), slots.reasonOf(1)]).toEqual([true, 7, 0, 1]);
    slots.take(1, 6);
    expect([slots.hasBegun(1, 6), slots.hasBegun(1, 5), slots.reasonOf(1)]).toEqual([false, false, 0]);
  });
});

describe('a result crosses in the reply of the thread where it can be cloned for sure', () => {
  const cyclic: { self?: unknown } = {};
  cyclic.self = cyclic;

  it.each<[value: unknown, isSure: boolean]>([
    [undefined, true],
    ['text', true],
    [10n, true],
    [Symbol('s'), false],
    [() => {}, false],
    [{ a: [1, { b: null }], c: 'text' }, true],
    [Object.create(null), true],
    [{ done: () => {} }, false],
    [
      {
        get odd() {
          return 1;
        },
      },
      false,
    ],
    [new Uint8Array(1000), true],
    [Buffer.from('text'), true],
    [new Uint8Array(0), false],
    [new Date(), false],
    [new Map(), false],
    [new Proxy({}, {}), false],
    [cyclic, false],
    [Array.from({ length: 64 }, () => 1), false],
    [Array.from({ length: 63 }, () => 1), true],
    [Object.fromEntries(Array.from({ length: 64 }, (_, number) => [number, 1])), false],
    ['x'.repeat(128_000), true],
    ['x'.repeat(131_000), false],
    [new Uint8Array(131_000), false],
    [Buffer.alloc(131_000).subarray(0, 10), false], // All of it would be cloned.
    [new Uint8Array(new SharedArrayBuffer(131_000)), true],
    [Array.from({ length: 1000 }, () => 1), false],
  ])('%p: %p', (value, isSure) => {
    expect(isSurelyClonable(value)).toBe(isSure);
  });
});

it('the program of the threads is a file beside the rest', () => {
  expect(workerFile).toMatch(/lib\/threads\/worker\.ts$/);
});

it('a pool that has run nothing has no threads', () => {
  expect(new Pool({ filename: '', minThreads: 1, maxThreads: 1, idleTimeout: 0 }).threads).toEqual([]);
});

describe('a call that is revoked', () => {
  it('does not begin in a thread that is late', () => {
    const slots = Slots.for(1);
    slots.take(0, 5);
    expect(slots.revoke(0, 5)).toBe(true);
    expect(slots.begin(0, 5, 7)).toBe(false);
    expect(slots.revoke(0, 5)).toBe(true); // Once more.
  });

  it('does not begin in place of the next one, wherever its thread stands still meanwhile', () => {
    const slots = Slots.for(1);
    const { compareExchange } = Atomics;
    slots.take(0, 5);
    const late = jest.spyOn(Atomics, 'compareExchange').mockImplementationOnce((...args: unknown[]) => {
      // Now the thread of call 5 has read what it wanted to read.
      late.mockRestore();
      expect(slots.revoke(0, 5)).toBe(true);
      slots.take(0, 6);
      return Reflect.apply(compareExchange, Atomics, args);
    });
    expect(slots.begin(0, 5, 7)).toBe(false);
    expect(slots.hasBegun(0, 6)).toBe(false);
    expect(slots.begin(0, 6, 8)).toBe(true);
    expect(slots.threadOf(0)).toBe(8);
  });

  it('has to be ended where it has begun', () => {
    const slots = Slots.for(1);
    slots.take(0, 5);
    slots.begin(0, 5, 7);
    expect(slots.revoke(0, 5)).toBe(false);
    expect(slots.hasBegun(0, 5)).toBe(true);
  });
});

it('a call that a thread runs does not fail of another thread that could not start', () => {
  const slots = Slots.for(1);
  const target = { task: 'resize', module: '/resize.js', exported: 'default' };
  const call = new Call(target, [], undefined, { slots, threads: [] });
  const stopped = jest.fn();
  call.stop.on('abort', stopped);
  call.fail(new Error('no memory')); // It waits for its turn.
  const { call: number } = call.begin(0);
  slots.begin(0, number, 7);
  call.fail(new Error('no memory'));
  call.over();
  expect([call.isStopped, stopped.mock.calls]).toEqual([false, []]);
});

describe('a result that is posted on its own', () => {
  const target = { task: 'resize', module: '/resize.js', exported: 'default' };
  const posted = { is: 'posted', progress: undefined } as const;

  it.each(['before', 'after'])('may come %s the reply', async (order) => {
    const call = new Call(target, [], undefined, { slots: Slots.for(1), threads: [] });
    const value = { width: 800 };
    const message = { is: 'posted', call: 1, value } as const;
    if (order === 'before') call.heard(message);
    const result = call.result(posted);
    if (order === 'after') call.heard(message);
    expect(await result).toBe(value);
  });
});

it('progress that arrives behind the reply does not take the place of the last one, which the reply has', async () => {
  const seen: unknown[] = [];
  const { signal } = new AbortController();
  const attempt = {
    id: 'id-1',
    name: 'resize',
    attempt: 1,
    signal,
    progress: (value: unknown) => void seen.push(value),
  };
  const target = { task: 'resize', module: '/resize.js', exported: 'default' };
  const call = new Call(target, [], attempt, { slots: Slots.for(1), threads: [] });
  call.heard({ is: 'progress', call: 1, json: '1' });
  await call.result({ is: 'value', value: undefined, progress: '3' });
  call.heard({ is: 'progress', call: 1, json: '2' });
  expect(seen).toEqual([1, 3]);
});
