// When the slots of schedules are looked at, on a store whose clock the test moves.

import { timeOfId } from '../../lib/engine/id.js';
import { createEngine, type EngineDriver, type ScheduleStore, type StoredSchedule } from '../../lib/engine/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts } from '../fixtures/timeouts.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const tick = task('tick', () => {});
const everySecond = '* * * * * *';
const start = Date.parse('2027-01-01T00:00:00.250Z');

/** In seconds since the beginning of the year. */
const seconds = (time: number): number => (time - start + 250) / 1000;

/** A store with a clock of its own, and what was asked of it. */
class Clocked {
  time = start;
  readonly all = new Map<string, StoredSchedule>();
  readonly looks: number[] = [];
  /** Of each task: its slot, and when it was enqueued. */
  readonly enqueued: { name: string; slot: number; at: number }[] = [];
  readonly error = jest.fn();
  readonly engine: TaskEngine;

  constructor(store: Partial<ScheduleStore> = {}, more: Partial<EngineDriver> = {}) {
    this.engine = createEngine({
      name: 'mine',
      insert: async ({ id }) => id,
      work: () => ({ stop: () => {}, close: async () => {} }),
      close: () => {},
      now: () => this.time,
      schedules: {
        list: async (due) => {
          if (due !== undefined) this.looks.push(seconds(this.time));
          return [...this.all.values()].filter(({ next }) => due === undefined || next <= due);
        },
        put: async (schedule) => void this.all.set(schedule.name, schedule),
        delete: async (name) => this.all.delete(name),
        advance: async (schedule, next, { id }) => {
          const { name } = schedule;
          this.all.set(name, { ...schedule, next });
          this.enqueued.push({ name, slot: seconds(timeOfId(id)?.getTime() ?? 0), at: seconds(this.time) });
        },
        ...store,
      },
      ...more,
    });
  }

  work(): ReturnType<TaskEngine['work']> {
    return this.engine.work([tick], { logger: { error: this.error } });
  }

  async pass(ms: number): Promise<void> {
    for (let passed = 0; passed < ms; passed += 125) {
      this.time += 125;
      await jest.advanceTimersByTimeAsync(125);
    }
  }

  get slots(): [slot: number, at: number][] {
    return this.enqueued.map(({ slot, at }) => [slot, at]);
  }
}

beforeEach(fakeTimeouts);

describe('a worker', () => {
  it('looks once a second where nothing is due, and no more once it is closed', async () => {
    const store = new Clocked();
    const worker = await store.work();
    await store.pass(2250);
    expect(store.looks).toEqual([0.375, 1.25, 2.25]);
    await worker.close();
    await store.pass(3000);
    expect(store.looks).toHaveLength(3);
  });

  it('does not look more often with a second one, nor while it makes a schedule that is far off', async () => {
    const store = new Clocked();
    await store.work();
    await store.pass(250);
    await store.work();
    await store.pass(250);
    await store.engine.schedule('s', { cron: '@yearly' }, tick);
    await store.pass(2000);
    expect(store.looks).toEqual([0.375, 1.75, 2.75]);
  });

  it('enqueues each slot at its time', async () => {
    const store = new Clocked();
    await store.engine.schedule('s', { cron: everySecond }, tick);
    await store.work();
    await store.pass(3000);
    expect(store.slots).toEqual([
      [1, 1],
      [2, 2],
      [3, 3],
    ]);
  });

  it('meets the first slot of a schedule that is made while it works', async () => {
    const store = new Clocked();
    await store.work();
    await store.pass(500);
    await store.engine.schedule('s', { cron: everySecond }, tick);
    await store.pass(500);
    expect(store.slots).toEqual([[1, 1]]);
  });

  it('meets slots also beside a schedule that fails', async () => {
    const store = new Clocked();
    store.all.set('broken', { name: 'broken', definition: '{', next: start - 1 });
    await store.engine.schedule('s', { cron: everySecond }, tick);
    await store.work();
    await store.pass(2000);
    expect(store.slots).toEqual([
      [1, 1],
      [2, 2],
    ]);
    expect(store.looks.length).toBeLessThan(8);
  });

  it('looks no more where it was closed while it looked', async () => {
    const answer = deferred<[]>();
    const list = jest.fn(() => answer.promise);
    const store = new Clocked({ list });
    const worker = await store.work();
    await store.pass(125);
    expect(list).toHaveBeenCalledTimes(1);
    await worker.close();
    answer.resolve([]);
    await store.pass(3000);
    expect(list).toHaveBeenCalledTimes(1);
  });

  it('does not look where the engine has no schedules', async () => {
    const store = new Clocked({}, { schedules: undefined as never });
    await store.work();
    await store.pass(2000);
    expect(store.error).not.toHaveBeenCalled();
    for (const [call, name] of [
      [store.engine.schedule('s', { cron: everySecond }, tick), 'schedule()'],
      [store.engine.unschedule('s'), 'unschedule()'],
      [store.engine.schedules(), 'schedules()'],
    ] as const) {
      await expect(call).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(name) });
    }
  });

  it('reports a store that does not take the task as one that is out of reach', async () => {
    const advance = (): Promise<never> => Promise.reject(new Error('gone'));
    const store = new Clocked({ advance });
    await store.engine.schedule('s', { cron: everySecond }, tick);
    await store.work();
    await store.pass(1000);
    const message = 'mine: the task of a schedule could not be stored: gone';
    expect(store.error.mock.calls).toEqual([
      [
        { err: expect.objectContaining({ code: 'ERR_ENGINE_UNAVAILABLE', message }) },
        'A worker of background tasks cannot reach its store, and tries again',
      ],
    ]);
  });
});

describe('a slot that came before any worker here', () => {
  async function missed(store: Partial<ScheduleStore>): Promise<Clocked> {
    const clocked = new Clocked(store);
    await clocked.engine.schedule('s', { cron: everySecond }, tick);
    await clocked.pass(3000);
    await clocked.work();
    return clocked;
  }

  it('is left to those that worked then for 5 s, and made up with those since by one task for the last', async () => {
    const store = await missed({});
    await store.pass(2500);
    expect(store.slots).toEqual([]);
    await store.pass(750);
    expect(store.slots[0]).toEqual([3, 6]);
    expect(store.slots.map(([slot]) => slot)).toEqual([3, 4, 5, 6]);
  });

  it.each([
    [0, 3.375],
    [1000, 3.375],
    [3000, 4],
  ])('is left to them for as long as the store says: %s ms', async (patience, at) => {
    const store = await missed({ patience });
    await store.pass(1000);
    expect(store.slots[0]).toEqual([3, at]);
  });

  it('is not one that comes in the moment in which the worker begins', async () => {
    const store = new Clocked();
    await store.engine.schedule('s', { cron: everySecond }, tick);
    store.time += 750;
    await store.work();
    await jest.advanceTimersByTimeAsync(1);
    expect(store.slots).toEqual([[1, 1]]);
  });
});

describe('schedule()', () => {
  const nextOf = ({ all }: Clocked, name: string): number => seconds(all.get(name)?.next ?? 0);

  it('keeps a slot that has come meanwhile, of the same times only', async () => {
    const store = new Clocked();
    for (const name of ['same', 'other pattern', 'other zone']) {
      await store.engine.schedule(name, { cron: everySecond }, tick);
    }
    store.time += 10_000;
    await store.engine.schedule('same', { cron: everySecond }, tick);
    await store.engine.schedule('other pattern', { cron: '*/1 * * * * *' }, tick);
    await store.engine.schedule('other zone', { cron: everySecond, timeZone: 'Asia/Tokyo' }, tick);
    await store.engine.schedule('new', { cron: everySecond }, tick);
    expect(['same', 'other pattern', 'other zone', 'new'].map((name) => nextOf(store, name))).toEqual([1, 11, 11, 11]);
  });

  it('replaces one that somebody else has written', async () => {
    const store = new Clocked();
    store.all.set('s', { name: 's', definition: '{', next: start - 5000 });
    await store.engine.schedule('s', { cron: everySecond }, tick);
    expect(nextOf(store, 's')).toBe(1);
  });

  it('stores nothing where the store has answered too late', async () => {
    const answer = deferred<[]>();
    const put = jest.fn();
    const store = new Clocked({ list: () => answer.promise, put });
    const made = store.engine.schedule('s', { cron: everySecond }, tick);
    const refused = expect(made).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await store.pass(6000);
    await refused;
    answer.resolve([]);
    await store.pass(125);
    expect(put).not.toHaveBeenCalled();
  });

  it('goes by the clock of this machine where the store has none', async () => {
    const store = new Clocked({}, { now: undefined as never });
    await store.engine.schedule('s', { cron: everySecond }, tick);
    expect(Math.abs((store.all.get('s')?.next ?? 0) - Date.now())).toBeLessThan(60_000);
  });

  it('says what is missing where croner is not installed', async () => {
    jest.resetModules();
    jest.doMock('croner', () => {
      throw new Error('Cannot find module');
    });
    const fresh = require('../../lib/engine/index.js') as typeof import('../../lib/engine/index.js');
    const { task: freshTask } = require('../../lib/index.js') as typeof import('../../lib/index.js');
    const schedules = { list: jest.fn(), put: jest.fn(), delete: jest.fn(), advance: jest.fn() };
    const engine = fresh.createEngine({ name: 'mine', insert: async ({ id }) => id, close: () => {}, schedules });
    await expect(
      engine.schedule(
        's',
        { cron: everySecond },
        freshTask('tick', () => {}),
      ),
    ).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: 'schedule(): install croner, which reads the patterns',
      cause: expect.objectContaining({ message: 'Cannot find module' }),
    });
    jest.dontMock('croner');
  });
});

it.each([
  ['schedule', 'list', 'the schedule could not be stored'],
  ['schedule', 'put', 'the schedule could not be stored'],
  ['unschedule', 'delete', 'the schedule could not be removed'],
  ['schedules', 'list', 'the schedules could not be read'],
] as const)('%s() says what could not be done where the store does not %s', async (call, method, what) => {
  const { engine } = new Clocked({ [method]: () => Promise.reject(new Error('gone')) });
  const calls = {
    schedule: () => engine.schedule('s', { cron: everySecond }, tick),
    unschedule: () => engine.unschedule('s'),
    schedules: () => engine.schedules(),
  };
  await expect(calls[call]()).rejects.toMatchObject({
    code: 'ERR_ENGINE_UNAVAILABLE',
    message: `mine: ${what}: gone`,
  });
});
