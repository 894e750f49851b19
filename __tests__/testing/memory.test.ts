// memory(): what only this engine promises. Whatever all engines do is in memory-conformance.test.ts.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';
import { currentTask, enqueue, type OnError, type Task, task } from '../../lib/index.js';
import { memory } from '../../lib/testing/index.js';
import { MemoryDriver, MemoryStore } from '../../lib/testing/memory-driver.js';
import { MemoryTable } from '../../lib/testing/memory-table.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts, trackTimeouts, unfaked } from '../fixtures/timeouts.js';

// Takes the timers of the library from globalThis, where they are counted.
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const sendMail = task('send-mail', async (_to: string) => {});

it('tells what was enqueued and has not run, oldest first', async () => {
  const engine = memory();
  expect(engine.enqueued(sendMail)).toEqual([]);
  await engine.enqueue(sendMail, 'ada@example.com');
  await engine.enqueue(sendMail.with({ delay: 60_000 }), 'grace@example.com');
  await engine.enqueue(task('other', () => {}));
  expect(engine.enqueued(sendMail)).toEqual([['ada@example.com'], ['grace@example.com']]);
  await engine.drain([sendMail]);
  expect(engine.enqueued(sendMail)).toEqual([['grace@example.com']]);
  expect(() => engine.enqueued((() => {}) as unknown as Task)).toThrow(
    expect.objectContaining({
      code: 'ERR_INVALID_TASK',
      message: expect.stringContaining('enqueued(): a task must be made by task(), not [Function'),
    }),
  );
});

it('opens no timer without work()', async () => {
  const waiting = trackTimeouts();
  const setInterval = jest.spyOn(globalThis, 'setInterval');
  const engine = memory();
  await engine.enqueue(sendMail, 'ada@example.com');
  await engine.enqueue(sendMail.with({ delay: 60_000 }), 'grace@example.com');
  await engine.schedule('s', { cron: '* * * * *' }, sendMail, 'ada@example.com');
  await engine.list();
  expect(waiting()).toBe(0);
  expect(setInterval).not.toHaveBeenCalled();

  // The measure works: a worker has timers.
  const worker = await engine.work([task('other', () => {})]);
  expect(waiting()).toBeGreaterThan(0);
  expect(setInterval).toHaveBeenCalled();
  await worker.close();
  expect(waiting()).toBe(0);
});

it('within() takes any object, and stores at once', async () => {
  const engine = memory();
  const transaction = engine.within({ query: () => {} });
  const { id } = await transaction.enqueue(sendMail, 'ada@example.com');
  const [second] = await transaction.enqueueMany(sendMail, [['grace@example.com']]);
  expect(engine.enqueued(sendMail)).toEqual([['ada@example.com'], ['grace@example.com']]);
  await engine.drain([sendMail]);
  expect(await engine.get(id)).toMatchObject({ state: 'succeeded' });
  expect(await engine.get(second?.id ?? '')).toMatchObject({ state: 'succeeded' });
  expect(() => engine.within(undefined as unknown as object)).toThrow(
    expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
  );
});

it('keeps each engine apart', async () => {
  await memory().enqueue(sendMail, 'ada@example.com');
  expect(memory().enqueued(sendMail)).toEqual([]);
});

it('drain() runs what is due, one task at a time and in order, and what that enqueues', async () => {
  const engine = memory();
  const log: string[] = [];
  const second = task('second', async (label: string) => {
    log.push(`${label} begins`);
    await new Promise(setImmediate);
    log.push(`${label} ends`);
  });
  const first = task('first', async () => {
    await enqueue(second, 'a');
    await enqueue(second, 'b');
  });
  await engine.enqueue(first);
  await engine.drain([first, second]);
  expect(log).toEqual(['a begins', 'a ends', 'b begins', 'b ends']);
});

it('drain() leaves tasks of other names alone, unreported, and reports those that fail', async () => {
  const engine = memory();
  const error = new Error('no such mailbox');
  const fails = task('fails', () => Promise.reject(error));
  await engine.enqueue(sendMail, 'ada@example.com');
  await engine.enqueue(fails);
  const onError = jest.fn();
  await engine.drain([fails], { onError });
  expect(onError.mock.calls).toEqual([[error, { task: expect.objectContaining({ name: 'fails' }), args: [] }]]);
  expect(engine.enqueued(sendMail)).toHaveLength(1);
  await engine.drain([]);
});

it('advance() brings delays and retries about', async () => {
  const engine = memory();
  const ran: unknown[] = [];
  const flaky = task(
    'flaky',
    () => {
      ran.push(currentTask()?.attempt);
      if (ran.length === 1) throw new Error('not yet');
    },
    { delay: 3_600_000, retries: { limit: 1, minDelay: 60_000, jitter: false } },
  );
  const { id } = await engine.enqueue(flaky);
  await engine.drain([flaky]);
  expect(ran).toEqual([]);
  engine.advance(3_600_000);
  await engine.drain([flaky]);
  expect(ran).toEqual([1]);
  engine.advance(59_000);
  await engine.drain([flaky]);
  expect(ran).toEqual([1]);
  engine.advance(1000);
  await engine.drain([flaky]);
  expect(ran).toEqual([1, 2]);
  expect(await engine.get(id)).toMatchObject({ state: 'succeeded', attempts: 2 });
  for (const bad of [-1, Number.NaN, Number.POSITIVE_INFINITY, '1' as unknown as number]) {
    const message = expect.stringMatching(/^advance\(\): the duration must be milliseconds from 0, not /);
    expect(() => engine.advance(bad)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION', message }));
  }
  engine.advance(0);
});

it('runs each of two delayed tasks when it is due', async () => {
  const engine = memory();
  const ran = deferred();
  const late = task('late', () => ran.resolve());
  const [first, second] = [
    await engine.enqueue(late.with({ delay: 20 })),
    await engine.enqueue(late.with({ delay: 30_000 })),
  ];
  await engine.work([late]);
  await ran.promise;
  expect(await engine.get(second.id)).toMatchObject({ state: 'queued', attempts: 0 });
  expect((await engine.list()).map(({ id }) => id)).toEqual([second.id, first.id]);
  await engine.close();
});

it('list() tells no results, and get() does', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(task('value', () => 5));
  await engine.drain([task('value', () => 5)]);
  expect(await engine.get(id)).toMatchObject({ state: 'succeeded', result: 5 });
  expect((await engine.list())[0]).not.toHaveProperty('result');
});

it('advance() wakes a worker', async () => {
  const engine = memory();
  const { promise: ran, resolve } = deferred();
  await engine.work([task('late', () => resolve())]);
  await engine.enqueue(task('late', { delay: 3_600_000 }));
  engine.advance(3_600_000);
  await ran;
  await engine.close();
});

it('advance() makes a worker meet the slots of schedules', async () => {
  fakeTimeouts(); // A worker looks for slots by itself, up to a second later.
  const engine = memory();
  let runs = 0;
  const hourly = task('hourly', () => void runs++);
  await engine.work([hourly]);
  const minute = (new Date().getUTCMinutes() + 30) % 60; // Far from now: no slot comes by itself.
  await engine.schedule('s', { cron: `${minute} * * * *` }, hourly);
  for (let hour = 1; hour <= 3; hour++) {
    engine.advance(3_600_000);
    while (runs < hour) await new Promise(setImmediate);
  }
  expect(runs).toBe(3);
  await engine.close();
});

it('advance() makes up slots by one task where no worker has been there', async () => {
  const engine = memory();
  const daily = task('daily', () => {});
  // Far from now: no slot comes while the test runs.
  await engine.schedule('s', { cron: `0 ${(new Date().getUTCHours() + 12) % 24} * * *` }, daily);
  for (let day = 0; day < 5; day++) {
    engine.advance(86_400_000);
    await new Promise(setImmediate);
  }
  expect(engine.enqueued(daily)).toEqual([]);
  await engine.drain([daily]);
  expect(await engine.stats()).toMatchObject({ queued: 0, succeeded: 1 });
  await engine.close();
});

it('a worker that looks for tasks is healthy, however long there are none', async () => {
  jest.useFakeTimers({ doNotFake: unfaked.filter((name) => name !== 'performance' && name !== 'Date') });
  const engine = memory();
  const worker = await engine.work([sendMail]);
  for (let seconds = 0; seconds < 60; seconds++) {
    jest.advanceTimersByTime(1000);
    await new Promise(setImmediate);
  }
  expect(worker.health()).toMatchObject({ healthy: true, running: 0 });
  await engine.close();
});

it('drain() is refused inside a task of the engine, for which it would wait', async () => {
  const engine = memory();
  const drains: Task<[], Promise<void>> = task('drains', () => engine.drain([drains]));
  const reports: unknown[] = [];
  await engine.enqueue(drains);
  await engine.drain([drains], { onError: (error) => void reports.push(error) });
  expect(reports).toEqual([
    expect.objectContaining({
      code: 'ERR_INVALID_OPTION',
      message: 'drain(): inside a task of the engine it would wait for itself',
    }),
  ]);
  await expect(engine.drain(undefined as unknown as Task[])).rejects.toMatchObject({ code: 'ERR_INVALID_TASK' });
});

it('a record has no error where none was met, and no priority where that is 0', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(sendMail.with({ priority: 0 }), 'ada@example.com');
  await engine.cancel(id);
  const record = await engine.get(id);
  expect(Object.keys(record ?? {}).sort()).toEqual([
    'args',
    'attempts',
    'enqueuedAt',
    'finishedAt',
    'id',
    'name',
    'state',
  ]);
});

it('reports what no worker knows once, and nothing else', async () => {
  jest.useFakeTimers({ doNotFake: [...unfaked, 'setTimeout', 'clearTimeout'] }); // A worker looks once a second.
  const engine = memory();
  const reports: string[] = [];
  const onError: OnError = (_error, { task: { id } }) => void reports.push(id);
  const begun = deferred();
  const end = deferred();
  const slow = task('slow', () => {
    begun.resolve();
    return end.promise;
  });
  await expect(engine.drain(undefined as unknown as Task[])).rejects.toThrow('array'); // Workers still report afterwards.
  await engine.enqueue(slow); // It runs,
  await engine.enqueue(slow); // waits for a slot,
  await engine.enqueue(task('unknown', { delay: 60_000 })); // or is not due.
  const unknown = await engine.enqueue(task('unknown'));
  await engine.work([slow], { concurrency: 1, onError });
  await engine.work([sendMail], { onError });
  await begun.promise;
  jest.advanceTimersByTime(5000);
  await new Promise(setImmediate);
  expect(reports).toEqual([unknown.id]);
  end.resolve();
  await engine.close();
});

it('pages go on where the page before ended, also when its last task was removed', async () => {
  const engine = memory();
  const ids: string[] = [];
  for (const to of ['a', 'b', 'c']) {
    ids.unshift((await engine.enqueue(sendMail, to)).id);
    await new Promise((resolve) => setTimeout(resolve, 2)); // An id holds its time in ms.
  }
  const [last] = await engine.list({ limit: 1 });
  await engine.remove(String(last?.id));
  expect((await engine.list({ after: String(last?.id) })).map(({ id }) => id)).toEqual(ids.slice(1));
});

it('gives back what had not begun when its worker closes, as if it had not been taken', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(sendMail, 'ada@example.com');
  const worker = await engine.work([sendMail]);
  setImmediate(() => void worker.close()); // It is taken in this turn, and would begin in the next one.
  await new Promise((resolve) => setTimeout(resolve, 20));
  await worker.close();
  const record = await engine.get(id);
  expect(['queued', 'succeeded']).toContain(record?.state);
  expect(record?.attempts).toBe(record?.state === 'queued' ? 0 : 1);
});

it('stores a task of a known id once, counts one that waits behind another as queued, and has no page after an unknown id', async () => {
  const driver = new MemoryDriver(new MemoryStore());
  const message = { id: '01890a5d-ac96-774b-bcce-b302099a8057', name: 'a', args: [1], json: '[1]', key: 'k' };
  expect([await driver.insert(message), await driver.insert(message)]).toEqual([message.id, message.id]);
  expect(await driver.list({ limit: 10, offset: 0 })).toHaveLength(1);
  const engine = memory();
  const again = task('again', () => new Promise<void>((resolve) => setTimeout(resolve, 50)), {
    key: 'k',
    whileRunning: 'again',
  });
  await engine.work([again]);
  await engine.enqueue(again);
  await new Promise((resolve) => setTimeout(resolve, 20));
  await engine.enqueue(again);
  expect(await engine.stats()).toMatchObject({ queued: 1, due: 0, running: 1 });
  expect(await engine.list({ after: randomUUID() })).toEqual([]);
  await engine.close();
});

it('drain() reports none of the others as unknown, however long it takes', async () => {
  const engine = memory();
  const slow = task('slow', () => new Promise<void>((resolve) => setTimeout(resolve, 1200))); // A worker looks every second.
  const onError = jest.fn();
  await engine.enqueue(sendMail, 'ada@example.com');
  await engine.enqueue(slow);
  await engine.drain([slow], { onError });
  expect(onError).not.toHaveBeenCalled();
});

it('runs what waits behind a task that is removed before its retry', async () => {
  const engine = memory();
  const behind: string[] = [];
  const fails = task(
    'fails',
    async (then: 'enqueue' | 'run') => {
      if (then === 'run') return;
      behind.push((await engine.enqueue(fails, 'run')).id);
      throw new Error('no');
    },
    { key: 'k', whileRunning: 'again', retries: { limit: 1, minDelay: 60_000 } },
  );
  const { id } = await engine.enqueue(fails, 'enqueue');
  const worker = await engine.work([fails], { onError: () => {} });
  while ((await engine.get(id))?.error === undefined) await sleep(1);
  expect(await engine.remove(id)).toBe(1);
  while ((await engine.get(behind[0] ?? ''))?.state !== 'succeeded') await sleep(1);
  await worker.close();
  await engine.close();
});

it('misses no task that comes due while it looks', () => {
  let now = 1000;
  const table = new MemoryTable(() => now);
  const message = { id: '01890a5d-ac96-774b-bcce-b302099a8057', name: 'a', args: [], json: '[]', delay: 5 };
  table.insert(message);
  const before = now;
  expect(table.take(() => true)).toBeUndefined();
  now += 10;
  expect(table.nextDue(before)).toBe(1005);
});

it('keeps no progress of an attempt that is over, and moves no schedule on that has changed', async () => {
  const store = new MemoryStore();
  const driver = new MemoryDriver(store);
  const message = { id: '01890a5d-ac96-774b-bcce-b302099a8057', name: 'a', args: [], json: '[]' };
  await driver.insert(message);
  await driver.setProgress([{ id: message.id, attempt: 1, json: '1' }]);
  const [record] = await driver.find([message.id], { result: true });
  expect(record).not.toHaveProperty('progress');
  const schedule = { name: 's', definition: '{}', next: 1 };
  await driver.schedules.put(schedule, AbortSignal.abort());
  await driver.schedules.put({ ...schedule, next: 2 }, AbortSignal.abort());
  await driver.schedules.advance(schedule, 3, { ...message, id: 'x' }, AbortSignal.abort());
  expect(await driver.stats()).toMatchObject({ queued: 1 });
});

it.each(['closed', 'left open'])('keeps no process up, its worker %s', async (what) => {
  const program = require.resolve('./fixtures/leaves-worker.ts');
  const args = ['--require', require.resolve('../fixtures/typescript.cjs'), program, what];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  expect(stdout).toBe('ran\n');
});
