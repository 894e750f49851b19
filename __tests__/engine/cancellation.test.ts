// Tasks that were cancelled elsewhere: a runner asks for the marks of those that run in it.

import { setTimeout as sleep } from 'node:timers/promises';
import { MessageRunner, type StoredMessage } from '../../lib/engine/index.js';
import { currentTask, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const message: StoredMessage = { id: 'id', name: 'a', args: [], attempt: 1 };
const untilAborted = task('a', () => {
  const signal = currentTask()?.signal;
  return new Promise((_, reject) => {
    signal?.addEventListener('abort', () => reject(signal.reason));
  });
});

it('looks every 2 s while something runs, and not otherwise', async () => {
  fakeTimeouts();
  const asked: (readonly string[])[] = [];
  const gate = deferred();
  const runner = new MessageRunner([task('a', () => gate.promise)], {}, undefined, undefined, {
    findCancelled: async (ids) => {
      asked.push(ids);
      return [];
    },
  });
  await jest.advanceTimersByTimeAsync(10_000);
  expect(asked).toEqual([]);
  const run = runner.run(message);
  await jest.advanceTimersByTimeAsync(4500);
  expect(asked).toEqual([['id'], ['id']]);
  gate.resolve();
  await run;
  await jest.advanceTimersByTimeAsync(10_000);
  expect(asked).toHaveLength(2);
});

it('aborts the signal of a task that is marked: rejected, it ends as cancelled, and is not to be tried again', async () => {
  const runner = new MessageRunner([untilAborted], {}, undefined, undefined, {
    findCancelled: async () => ['id', 'x'],
  });
  const retries = { limit: 3, minDelay: 1, maxDelay: 1, factor: 1, jitter: false };
  const run = runner.run({ ...message, retries });
  await sleep(10);
  await runner.cancelMarked();
  expect(await run).toEqual({ state: 'cancelled' });
});

it('looks once where two ask at the same time, and again after that', async () => {
  const answer = deferred<string[]>();
  const find = jest.fn(() => answer.promise);
  const runner = new MessageRunner([untilAborted], {}, undefined, undefined, { findCancelled: find });
  const run = runner.run(message);
  await sleep(10);
  const looks = [runner.cancelMarked(), runner.cancelMarked()];
  answer.resolve([]);
  await Promise.all(looks);
  expect(find).toHaveBeenCalledTimes(1);
  find.mockResolvedValue(['ended meanwhile', 'id']);
  await runner.cancelMarked();
  expect(await run).toEqual({ state: 'cancelled' });
});

it('leaves no timer behind where nothing runs any more', async () => {
  const waiting = trackTimeouts();
  const runner = new MessageRunner([task('a', () => {})], {}, undefined, undefined, { findCancelled: async () => [] });
  await runner.run(message);
  await runner.cancelMarked();
  expect(waiting()).toBe(0);
});

it('does not begin what was marked before its turn', async () => {
  const ran = jest.fn();
  const runner = new MessageRunner([task('a', ran)], {}, undefined, undefined, { findCancelled: async () => ['id'] });
  const run = runner.run(message);
  await runner.cancelMarked();
  expect(await run).toEqual({ state: 'cancelled' });
  await sleep(10);
  expect(ran).not.toHaveBeenCalled();
  await runner.drained();
});

it('tries again where the store is away, and leaves no timer behind', async () => {
  const waiting = trackTimeouts();
  let isAway = true;
  const runner = new MessageRunner([untilAborted], {}, undefined, undefined, {
    findCancelled: async () => {
      if (isAway) throw new Error('away');
      return ['id'];
    },
  });
  const run = runner.run(message);
  await sleep(10);
  await runner.cancelMarked();
  isAway = false;
  await runner.cancelMarked();
  expect(await run).toEqual({ state: 'cancelled' });
  expect(waiting()).toBe(0);
});
