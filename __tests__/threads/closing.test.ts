// pool.close(): what runs and waits may end, up to a timeout.

import { begun, cells, openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

const closed = {
  code: 'ERR_TASKS_CLOSED',
  status: 503,
  message: 'task "default": its threads are closed',
};

const abandoned = (name: string) => ({
  code: 'ERR_TASK_ABANDONED',
  message: `task "${name}" was abandoned: it had not ended when close() of its threads reached its timeout of 1 ms`,
});

describe('pool.close()', () => {
  it('waits until what runs and what waits has ended, and refuses what comes later', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const echo = workTask(pool, 'echoLater');
    const calls = [echo(1, 100), echo(2, 1)];
    const ended: unknown[] = [];
    for (const call of calls) void call.then((value) => ended.push(value));
    const closing = pool.close({ timeout: Number.POSITIVE_INFINITY });
    await expect(workTask(pool, 'default')(1)).rejects.toMatchObject(closed);
    await closing;
    expect(ended).toEqual([1, 2]);
    await expect(workTask(pool, 'default')(1)).rejects.toMatchObject(closed);
    await pool.close();
  });

  it('has nothing to wait for where the pool has not been used', async () => {
    await openThreads().close();
  });

  it('waits for a call that failed as for one that succeeded', async () => {
    const pool = openThreads();
    const call = workTask(pool, 'recurse')();
    await Promise.all([pool.close(), expect(call).rejects.toMatchObject({ name: 'RangeError' })]);
  });

  it('at its timeout aborts the signals, and what ends within a second has its result', async () => {
    const pool = openThreads();
    const shared = cells();
    const call = workTask(pool, 'describeAfter')(shared);
    await begun(shared);
    await pool.close({ timeout: 1 });
    expect(await call).toBe('ended by itself');
  });

  it('at its timeout gives up what waits, and terminates what does not end', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const counter = cells();
    const calls = [workTask(pool, 'countForever')(counter), workTask(pool, 'default')(1)];
    const outcomes = Promise.allSettled(calls);
    await begun(counter);
    await Promise.all([pool.close(), pool.close({ timeout: 1 }), pool.close({ timeout: 2 })]);
    expect(await outcomes).toMatchObject([
      { status: 'rejected', reason: abandoned('countForever') },
      { status: 'rejected', reason: abandoned('default') },
    ]);
    const last = counter[0];
    await new Promise((resolve) => setTimeout(resolve, 50));
    expect(counter[0]).toBe(last);
  });

  it('gives up a call that has just got its turn, too', async () => {
    const pool = openThreads({ maxThreads: 1 });
    const first = workTask(pool, 'default')(1);
    const second = workTask(pool, 'countForever')(cells());
    // Runs before the second call has taken its turn.
    const closing = first.then(() => pool.close({ timeout: 0 }));
    await expect(second).rejects.toMatchObject({ code: 'ERR_TASK_ABANDONED' });
    await closing;
  });

  it('rejects for bad options', async () => {
    await expect(openThreads().close({ timeout: -1 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
  });
});
