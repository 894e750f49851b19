// Schedules: slots, time zones, those that nobody saw. Whether each store does a slot once is in drivers/operations.ts.

import { setTimeout as sleep } from 'node:timers/promises';
import { type BackgroundTasksError, currentTask, task } from '../../lib/index.js';
import { memory } from '../../lib/testing/index.js';
import { Memory } from '../../lib/testing/memory.js';
import { MemoryStore } from '../../lib/testing/memory-driver.js';

const hour = 3_600_000;
const seen: Date[] = [];
const tick = task('tick', () => {
  const id = currentTask()?.id.replaceAll('-', '').slice(0, 12) ?? '';
  seen.push(new Date(Number.parseInt(id, 16))); // The id of a scheduled task holds the time of its slot.
});

beforeEach(() => {
  seen.length = 0;
});

/** The slots between two times, on an engine that is drained every quarter of an hour. */
async function slots(cron: string, timeZone: string, from: string, to: string): Promise<string[]> {
  const store = new MemoryStore();
  const engine = new Memory(store);
  store.advance(Date.parse(from) - store.now());
  await engine.schedule('s', { cron, timeZone }, tick);
  while (store.now() < Date.parse(to)) {
    engine.advance(hour / 4);
    await engine.drain([tick]);
  }
  return seen.map((slot) => slot.toISOString());
}

describe('a time zone with daylight saving', () => {
  it('runs a fixed time in the hour that is skipped once', async () => {
    expect(await slots('30 2 * * *', 'Europe/Berlin', '2027-03-27T00:00:00Z', '2027-03-29T12:00:00Z')).toEqual([
      '2027-03-27T01:30:00.000Z',
      '2027-03-28T01:00:00.000Z', // 3:00, since there is no 2:30.
      '2027-03-29T00:30:00.000Z',
    ]);
  });

  it('runs a fixed time in the hour that is repeated once', async () => {
    expect(await slots('30 2 * * *', 'Europe/Berlin', '2027-10-30T00:00:00Z', '2027-11-01T12:00:00Z')).toEqual([
      '2027-10-30T00:30:00.000Z',
      '2027-10-31T00:30:00.000Z', // The first 2:30 of two.
      '2027-11-01T01:30:00.000Z',
    ]);
  });

  it('runs each time of a list once, those that meet after the hour that is skipped together', async () => {
    expect(await slots('15,45 2,14 * * *', 'Europe/Berlin', '2027-03-28T00:00:00Z', '2027-03-28T18:00:00Z')).toEqual([
      '2027-03-28T01:00:00.000Z',
      '2027-03-28T12:15:00.000Z',
      '2027-03-28T12:45:00.000Z',
    ]);
    seen.length = 0;
    expect(await slots('15,45 2,14 * * *', 'Europe/Berlin', '2027-10-31T00:00:00Z', '2027-10-31T18:00:00Z')).toEqual([
      '2027-10-31T00:15:00.000Z',
      '2027-10-31T00:45:00.000Z',
      '2027-10-31T13:15:00.000Z',
      '2027-10-31T13:45:00.000Z',
    ]);
  });

  it('makes up the last of the times that no worker saw, of an hour that is repeated the first one', async () => {
    const store = new MemoryStore();
    const engine = new Memory(store);
    store.advance(Date.parse('2027-10-30T12:00:00Z') - store.now());
    await engine.schedule('s', { cron: '15,45 2 * * *', timeZone: 'Europe/Berlin' }, tick);
    engine.advance(14 * hour); // The second of the two hours is over.
    await engine.drain([tick]);
    expect(seen).toEqual([new Date('2027-10-31T00:45:00Z')]);
    expect(await engine.schedules()).toMatchObject([{ nextRunAt: new Date('2027-11-01T01:15:00Z') }]);
  });

  it('leaves a pattern with a step to the clock', async () => {
    expect(await slots('*/30 2 * * *', 'Europe/Berlin', '2027-03-28T00:00:00Z', '2027-03-28T12:00:00Z')).toEqual([]);
    expect(await slots('*/30 2 * * *', 'Europe/Berlin', '2027-10-30T23:45:00Z', '2027-10-31T12:00:00Z')).toEqual([
      '2027-10-31T00:00:00.000Z',
      '2027-10-31T00:30:00.000Z',
      '2027-10-31T01:00:00.000Z',
      '2027-10-31T01:30:00.000Z',
    ]);
  });

  it('goes by UTC without one', async () => {
    expect(await slots('30 2 * * *', 'UTC', '2027-03-27T12:00:00Z', '2027-03-29T12:00:00Z')).toEqual([
      '2027-03-28T02:30:00.000Z',
      '2027-03-29T02:30:00.000Z',
    ]);
  });
});

it('enqueues one task a slot, also where several have come between two looks of a worker that lives', async () => {
  const store = new MemoryStore();
  const engine = new Memory(store);
  store.advance(Date.parse('2027-01-01T00:00:00.500Z') - store.now());
  await engine.schedule('s', { cron: '* * * * * *' }, tick);
  const worker = await engine.work([tick]);
  await sleep(20); // It has looked, and lives.
  engine.advance(5000);
  await until(() => seen.length >= 5);
  await worker.close();
  expect(seen.slice(0, 5).map((slot) => slot.toISOString())).toEqual([
    '2027-01-01T00:00:01.000Z',
    '2027-01-01T00:00:02.000Z',
    '2027-01-01T00:00:03.000Z',
    '2027-01-01T00:00:04.000Z',
    '2027-01-01T00:00:05.000Z',
  ]);
});

it('makes up the slots that no worker saw by one task, for the last of them', async () => {
  const engine = memory();
  await engine.schedule('s', { cron: '0 * * * *' }, tick);
  engine.advance(100 * hour);
  await engine.drain([tick]);
  expect(seen).toHaveLength(1);
  expect(Date.now() + 100 * hour - Number(seen[0])).toBeLessThan(hour);
  engine.advance(hour);
  await engine.drain([tick]);
  expect(seen).toHaveLength(2);
});

it('of a week of seconds that no worker saw is quick', async () => {
  const engine = memory();
  await engine.schedule('s', { cron: '* * * * * *' }, tick);
  engine.advance(7 * 24 * hour);
  const start = performance.now();
  await engine.drain([tick]);
  expect(seen.length).toBeGreaterThanOrEqual(1);
  expect(performance.now() - start).toBeLessThan(5000);
});

it('with years ends with its last slot', async () => {
  const store = new MemoryStore();
  const engine = new Memory(store);
  store.advance(Date.parse('2027-12-30T00:00:00Z') - store.now());
  await engine.schedule('s', { cron: '0 0 0 31 12 * 2027' }, tick);
  engine.advance(48 * hour);
  await engine.drain([tick]);
  expect(seen).toHaveLength(1);
  expect(await engine.schedules()).toEqual([
    { name: 's', cron: '0 0 0 31 12 * 2027', timeZone: 'UTC', task: 'tick', args: [] },
  ]);
});

describe('one that was changed while a worker looked', () => {
  async function stale(): Promise<{ engine: Memory; lookAgain(): Promise<void> }> {
    const store = new MemoryStore();
    const engine = new Memory(store);
    await engine.schedule('s', { cron: '@hourly' }, tick);
    const seenBefore = await store.schedules.list();
    engine.advance(hour);
    return {
      engine,
      lookAgain: async () => {
        jest.spyOn(store.schedules, 'list').mockResolvedValueOnce(seenBefore);
        await engine.enqueueDue();
      },
    };
  }

  it('does not come back after unschedule()', async () => {
    const { engine, lookAgain } = await stale();
    await engine.unschedule('s');
    await lookAgain();
    expect(await engine.schedules()).toEqual([]);
    expect(engine.enqueued(tick)).toEqual([]);
  });

  it('keeps its new pattern', async () => {
    const { engine, lookAgain } = await stale();
    await engine.schedule('s', { cron: '@daily' }, tick);
    await lookAgain();
    expect(await engine.schedules()).toMatchObject([{ cron: '@daily' }]);
    expect(engine.enqueued(tick)).toEqual([]);
  });
});

describe('one that fails', () => {
  const definition = JSON.stringify({ cron: 'of another version', timeZone: 'UTC', message: { json: '[]' } });

  async function withBroken(): Promise<{ store: MemoryStore; engine: Memory }> {
    const store = new MemoryStore();
    await store.schedules.put({ name: 'broken', definition, next: 0 });
    const engine = new Memory(store);
    await engine.schedule('s', { cron: '0 * * * *' }, tick);
    engine.advance(hour);
    return { store, engine };
  }

  it('does not hold up the others, and is logged by the worker', async () => {
    const { engine } = await withBroken();
    const error = jest.fn();
    const worker = await engine.work([tick], { logger: { error } });
    await until(() => seen.length === 1 && error.mock.calls.length > 0);
    await worker.close();
    expect(error.mock.calls).toEqual([
      [
        {
          err: expect.objectContaining({
            code: 'ERR_INVALID_OPTION',
            message: expect.stringMatching(/^the schedule "broken": "cron" or "timeZone": /),
          }),
        },
        'The schedule "broken" of background tasks enqueues nothing',
      ],
    ]);
  });

  it.each(['{', '{"cron":"* * * * *","timeZone":"UTC"}', '{"message":{"json":"["}}'])(
    'is told of by its name, each of them, and schedules() says which one it is: %s',
    async (unreadable) => {
      const store = new MemoryStore();
      for (const name of ['one', 'two']) await store.schedules.put({ name, definition: unreadable, next: 0 });
      const engine = new Memory(store);
      const error = jest.fn();
      const worker = await engine.work([tick], { logger: { error } });
      await until(() => error.mock.calls.length > 1);
      await worker.close();
      const code = 'ERR_INVALID_OPTION';
      expect(error.mock.calls).toEqual(
        ['one', 'two'].map((name) => [
          {
            err: expect.objectContaining({
              code,
              message: `the schedule "${name}": it cannot be read`,
              cause: expect.any(Error),
            }),
          },
          `The schedule "${name}" of background tasks enqueues nothing`,
        ]),
      );
      await expect(engine.schedules()).rejects.toMatchObject({ code, message: expect.stringContaining('"one"') });
      expect(await engine.unschedule('one')).toBe(true);
    },
  );

  it('is told apart from a store that fails, which the worker reports as such', async () => {
    const store = new MemoryStore();
    const engine = new Memory(store);
    const error = jest.fn();
    const worker = await engine.work([tick], { logger: { error } });
    store.schedules.list = () => Promise.reject(new Error('gone'));
    await until(() => error.mock.calls.length > 0);
    await worker.close();
    expect(error.mock.calls).toEqual([
      [
        { err: expect.objectContaining({ code: 'ERR_ENGINE_UNAVAILABLE' }) },
        'A worker of background tasks cannot reach its store, and tries again',
      ],
    ]);
  });

  it('fails drain(), after the others were enqueued', async () => {
    const { engine } = await withBroken();
    await expect(engine.drain([tick])).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
    expect(engine.enqueued(tick)).toHaveLength(1);
  });
});

it('enqueues the task with its options', async () => {
  const engine = memory();
  await engine.schedule(
    's',
    { cron: '@daily' },
    task('t', (_a: number) => {}, { priority: 7, key: 'k' }),
    5,
  );
  engine.advance(25 * hour);
  await engine.drain([]);
  expect(await engine.list()).toMatchObject([{ name: 't', args: [5], priority: 7, key: 'k' }]);
});

it.each([
  ['a name that is empty', '', { cron: '* * * * *' }, "the name must be a string that is not empty, not ''"],
  ['a name with half a surrogate pair', 's\ud800', { cron: '* * * * *' }, 'the name has half a surrogate pair'],
  ['no pattern', 's', {}, '"cron" must be a pattern'],
  ['an unknown option', 's', { cron: '* * * * *', timezone: 'UTC' }, 'unknown option'],
  ['a pattern with too few fields', 's', { cron: '* *' }, '"cron" or "timeZone": '],
  [
    'a pattern that never comes',
    's',
    { cron: '0 0 30 2 *' },
    '"cron" must be a pattern that comes, which \'0 0 30 2 *\' never does',
  ],
  [
    'a pattern with times that never come',
    's',
    { cron: '15,45 2-4 31 4,6 *', timeZone: 'Europe/Berlin' },
    'never does',
  ],
  ['a pattern of past years', 's', { cron: '0 0 1,2 * * * 2020' }, 'never does'],
  ['a list with a wrong hour', 's', { cron: '0 2,24 * * *' }, '"cron" or "timeZone": '],
  ['a date', 's', { cron: '2027-01-01T00:00:00' }, '"cron" must be a pattern, not the date \'2027-01-01T00:00:00\''],
  ['an unknown time zone', 's', { cron: '0 2,3 * * *', timeZone: 'Europe/Atlantis' }, '"cron" or "timeZone": '],
])('refuses %s with ERR_INVALID_OPTION', async (_title, name, options, reason) => {
  const engine = memory();
  const refused = await engine.schedule(name, options as { cron: string }, tick).then(
    () => ({}) as Partial<BackgroundTasksError>,
    (error: BackgroundTasksError) => error,
  );
  expect(refused.code).toBe('ERR_INVALID_OPTION');
  expect(refused.message).toMatch(/^schedule\(\): /);
  expect(refused.message).toContain(reason);
  // What croner has said.
  expect(refused.cause instanceof Error).toBe(reason.startsWith('"cron" or'));
  expect(await engine.schedules()).toEqual([]);
});

it('checks the task as enqueue does', async () => {
  const engine = memory();
  const refused = engine.schedule('s', { cron: '* * * * *' }, (() => {}) as never);
  await expect(refused).rejects.toMatchObject({ code: 'ERR_INVALID_TASK' });
  const options = { cron: '* * * * *' };
  const bad = engine.schedule(
    's',
    options,
    task('t', (_value: number) => {}),
    Number.NaN,
  );
  await expect(bad).rejects.toMatchObject({ code: 'ERR_TASK_NOT_SERIALIZABLE' });
});

async function until(isTrue: () => boolean): Promise<void> {
  while (!isTrue()) await sleep(5);
}
