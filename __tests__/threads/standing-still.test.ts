// A thread that stands still between two tasks: code that one has left behind never ends. Each test waits for the limit of a start.

import type * as Clock from '../../lib/clock';
import type { ThreadPool } from '../../lib/threads/index';
import { begun, cells, openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

/** In place of the 30 seconds that a thread has to begin. */
const mockLimit = 2500;

jest.mock('../../lib/clock', () => {
  const clock = jest.requireActual<typeof Clock>('../../lib/clock');
  return {
    ...clock,
    setTimeout: (fn: () => void, ms: number) => clock.setTimeout(fn, ms === 30_000 ? mockLimit : ms),
  };
});

/** Larger than what is copied for a second try. */
const large = Buffer.alloc(200_000);

/** The pool has one thread. */
async function standStill(pool: ThreadPool): Promise<void> {
  const started = cells();
  await workTask(pool, 'leaveLoop')(started);
  await begun(started);
}

it('is ended, and the call runs in another one', async () => {
  const pool = openThreads({ maxThreads: 1 });
  const thread = await workTask(pool, 'thread')();
  await standStill(pool);
  expect(await workTask(pool, 'thread')()).not.toBe(thread);
});

it('is ended, and a call that cannot be made again fails', async () => {
  const pool = openThreads({ maxThreads: 1 });
  await standStill(pool);
  await expect(workTask(pool, 'echo')(large)).rejects.toMatchObject({
    code: 'ERR_THREAD_DIED',
    message: 'task "echo" has lost its thread: no thread began with it within 30000 ms',
  });
  expect(await workTask(pool, 'default')(1, 2)).toBe(3);
});

it('leaves a call alone that takes longer', async () => {
  const pool = openThreads({ maxThreads: 1 });
  await workTask(pool, 'thread')();
  expect(await workTask(pool, 'echoLater')('here', mockLimit + 1500)).toBe('here');
});
