// health(): judged by when the store last answered, whatever the tasks do.

import { Health } from '../../lib/engine/health.js';
import { MessageRunner } from '../../lib/engine/index.js';
import { task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';

let now = 0;
jest.mock('../../lib/clock', () => ({
  ...jest.requireActual('../../lib/clock'),
  monotonicTime: () => now,
  wallClockTime: () => 1_800_000_000_000 + now,
}));

it('is good as long as the store answers, and bad within 15 s of the last answer', () => {
  const health = new Health();
  const start = new Date(1_800_000_000_000 + now);
  expect(health.report(2, false)).toEqual({ healthy: true, running: 2, lastPollAt: start });
  now += 10_000;
  expect(health.report(0, false)).toMatchObject({ healthy: true, lastPollAt: start });
  now += 1000;
  expect(health.report(0, false)).toEqual({
    healthy: false,
    running: 0,
    lastPollAt: start,
    reason: 'the worker has not looked for tasks for 11 seconds',
  });
  health.polled();
  expect(health.report(0, false)).toMatchObject({ healthy: true, lastPollAt: new Date(1_800_000_000_000 + now) });
});

it('says why the store does not answer, until it does', () => {
  const health = new Health();
  health.failed(new Error('ECONNREFUSED'));
  expect(health.report(0, false)).toMatchObject({ healthy: true }); // It may be back at once.
  now += 12_000;
  expect(health.report(0, false)).toMatchObject({
    healthy: false,
    reason: 'the store has not answered for 12 seconds: ECONNREFUSED',
  });
  health.polled();
  now += 12_000;
  expect(health.report(0, false).reason).toBe('the worker has not looked for tasks for 12 seconds');
});

it('is bad once the worker is closed', () => {
  expect(new Health().report(0, true)).toMatchObject({ healthy: false, reason: 'the worker is closed' });
});

it('of a runner: its driver says when it has polled, and what has failed; a task of an hour does not matter', async () => {
  const gate = deferred();
  const runner = new MessageRunner([task('a', () => gate.promise)], { logger: { error: () => {} } });
  const run = runner.run({ id: 'id', name: 'a', args: [], attempt: 1 });
  for (let minute = 0; minute < 60; minute++) {
    now += 60_000;
    runner.polled();
  }
  expect(runner.health()).toMatchObject({ healthy: true, running: 1 });
  runner.storeFailed(new Error('gone'));
  now += 11_000;
  expect(runner.health()).toMatchObject({ healthy: false, running: 1, reason: expect.stringMatching(/: gone$/) });
  gate.resolve();
  await run;
  await runner.drained();
  expect(runner.health()).toMatchObject({ healthy: false, running: 0 });
});
