// The BullMQ engine with several workers, of one process or of many, that do not all know the same tasks.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { BullmqDriver } from '../../lib/drivers/bullmq/driver.js';
import { bullmq } from '../../lib/drivers/bullmq/index.js';
import { createEngine } from '../../lib/engine/index.js';
import { type ErrorContext, type OnError, type TaskEngine, task } from '../../lib/index.js';
import { connection, obliterate, shortTiming } from './fixtures/bullmq.js';
import { send } from './fixtures/send.js';
import { closing, Notes, over, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, several workers on one queue', () => {
  let queue: string;

  beforeEach(() => {
    queue = `tasks-${randomUUID()}`;
  });

  afterEach(() => obliterate(queue));

  /** An engine of its own knows no more of the others than one of another process does. */
  function open(): TaskEngine {
    return closing(bullmq({ connection, queue }));
  }

  test('whose tasks are put back while their locks are renewed say nothing of a store out of reach', async () => {
    const timing = { ...shortTiming, lockDuration: 15_000, lockRenewTime: 10 };
    const engine = closing(createEngine(new BullmqDriver(queue, { ...connection, lazyConnect: true }, timing)));
    const logger = { error: jest.fn() };
    const flaky = task('flaky', () => Promise.reject(new Error('not yet')), {
      retries: { limit: 20, minDelay: 10, maxDelay: 10 },
    });
    await engine.work([flaky], { logger, onError: () => {} });
    const tasks = await Promise.all(Array.from({ length: 20 }, () => engine.enqueue(flaky)));
    for (const { id } of tasks) await over(engine, id);
    expect(logger.error.mock.calls).toEqual([]);
  });

  test.each([
    ['process', () => Array<TaskEngine>(3).fill(open())],
    ['machine', () => [open(), open(), open()]],
  ])(
    'of one %s that know a task each: none is reported, and none waits',
    async (_, engines) => {
      const reports = new Notes<unknown>();
      const waited = { own: new Notes<number>(), shared: new Notes<number>() };
      const names = ['a', 'b', 'c', 'shared'];
      for (const [index, engine] of engines().entries()) {
        const own = task(String(names[index]), (at: number) => waited.own.note(Date.now() - at));
        const shared = task('shared', (at: number) => waited.shared.note(Date.now() - at));
        await engine.work([own, shared], { onError: reports.note });
      }
      const producer = open();
      for (let count = 0; count < 80; count++) {
        await send(producer, { name: String(names[count % 4]), args: [Date.now()] });
        await sleep(25);
      }
      const slowestOfMost = async (notes: Notes<number>, count: number): Promise<number> => {
        const [slowest = 0] = (await notes.first(count)).sort((a, b) => a - b).slice(0.9 * count);
        return slowest;
      };
      // Some milliseconds. On a busy machine those that all know wait too.
      const usual = await slowestOfMost(waited.shared, 20);
      expect(await slowestOfMost(waited.own, 60)).toBeLessThan(500 + 5 * usual);
      expect(reports.all).toEqual([]);
    },
    60_000,
  );

  test('of one process run as many tasks at once as each of them may', async () => {
    const engine = open();
    const running = { a: 0, b: 0 };
    const most = { a: 0, b: 0 };
    const [a, b] = (['a', 'b'] as const).map((name) =>
      task(name, async () => {
        most[name] = Math.max(most[name], ++running[name]);
        await sleep(20);
        running[name]--;
      }),
    );
    if (a === undefined || b === undefined) throw new Error('there are two');
    await engine.work([a], { concurrency: 1 });
    await engine.work([b], { concurrency: 5 });
    const sent = await Promise.all(Array.from({ length: 60 }, (_, index) => engine.enqueue(index % 2 === 0 ? a : b)));
    for (const { id } of sent) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(most.a).toBe(1);
    expect(most.b).toBeGreaterThan(1);
    expect(most.b).toBeLessThanOrEqual(5);
  });

  test('of one process may be closed while they run each other’s tasks', async () => {
    const engine = open();
    const { waits, started, end } = waitingTask('waits');
    const other = await engine.work([task('other', () => {})]);
    const worker = await engine.work([waits]);
    const ids: string[] = [];
    for (let count = 0; count < 8; count++) ids.push((await send(engine, { name: 'waits', args: [count] })).id);
    await started.first(8);
    await other.close();
    end();
    await worker.close();
    for (const id of ids) expect(await engine.get(id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    expect(started.all).toHaveLength(8);
  });

  test('report each task that none of them knows once, and run it as soon as one does', async () => {
    const reported = new Map<string, number>();
    const onError: OnError = (error, { task: { id } }: ErrorContext) => {
      expect(error).toMatchObject({ code: 'ERR_UNKNOWN_TASK' });
      reported.set(id, (reported.get(id) ?? 0) + 1);
    };
    const engine = open();
    for (const name of ['a', 'b']) await engine.work([task(name, () => {})], { onError });
    await open().work([task('c', () => {})], { onError });
    const ids: string[] = [];
    for (let batch = 0; batch < 4; batch++) {
      const sent = Array.from({ length: 250 }, () => send(engine, { name: 'unknown', args: [] }));
      ids.push(...(await Promise.all(sent)).map(({ id }) => id));
    }
    while (reported.size < ids.length) await sleep(50);
    await sleep(1000); // They are met again.
    expect([...reported.keys()].sort()).toEqual(ids.sort());
    expect([...reported.values()].every((times) => times === 1)).toBe(true);
    await open().work([task('unknown', () => {})]);
    for (const id of ids.slice(0, 20))
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
  }, 60_000);

  test("tell the failure of a task to the onError of the worker that knows it, whoever's slot it ran in", async () => {
    const engine = open();
    const notes = { a: new Notes<string>(), b: new Notes<string>() };
    for (const name of ['a', 'b'] as const) {
      const fails = task(name, () => {
        throw new Error(name);
      });
      await engine.work([fails], { onError: (_, context) => notes[name].note(context.task.name) });
    }
    for (let count = 0; count < 40; count++) await send(engine, { name: count % 2 === 0 ? 'a' : 'b', args: [] });
    expect(await notes.a.first(20)).toEqual(Array(20).fill('a'));
    expect(await notes.b.first(20)).toEqual(Array(20).fill('b'));
  });
});
