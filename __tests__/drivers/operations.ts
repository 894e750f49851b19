// The part of the conformance suite about what people do with a queue: look into it, cancel, retry, remove, schedule.

import type { ChildProcess } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import {
  type BackgroundTasksError,
  currentTask,
  NonRetryableError,
  type RemoteTask,
  type TaskEngine,
  type TaskRecord,
  task,
} from '../../lib/index.js';
import { type Sent, send } from './fixtures/send.js';
import { backoff, eventually, failure, Gate, over, reaches, reporter, Seen } from './fixtures/suite-tools.js';
import type { WorkerReport } from './fixtures/worker-process.js';

/** What an engine may not have. The suite then asserts that it refuses it clearly. */
export type Ability =
  | 'work'
  | 'get'
  | 'timeout'
  | 'retries'
  | 'delay'
  | 'priority'
  | 'key'
  | 'enqueueMany'
  | 'list'
  | 'stats'
  | 'cancel'
  | 'retry'
  | 'promote'
  | 'remove'
  | 'schedule'
  | 'progress'
  /** `ready()` that asks the store: a driver without `prepare` is always ready. */
  | 'ready'
  /** Several processes that share the store. */
  | 'processes';

export interface Bench {
  can(ability: Ability): boolean;
  test(title: string, body: () => Promise<void>): void;
  openEngine(): Promise<TaskEngine>;
  startWorkerProcess(): Promise<{ child: ChildProcess; reports: Seen<WorkerReport> }>;
}

const numbers: RemoteTask<[value: number]> = task('conformance.record');

export function describeOperations({ can, test, openEngine, startWorkerProcess }: Bench): void {
  function describeIf(
    ability: Ability,
    title: string,
    refused: (engine: TaskEngine) => Promise<unknown>,
    body: () => void,
  ) {
    describe(title, () => {
      if (can(ability)) {
        body();
      } else {
        test('is refused with ERR_INVALID_OPTION, which names the engine, since it does not have it', async () => {
          const error: BackgroundTasksError = await failure(refused(await openEngine()));
          expect(error).toMatchObject({ name: 'BackgroundTasksError', code: 'ERR_INVALID_OPTION' });
        });
      }
    });
  }

  /** Starts a worker that adds the argument of each task it runs to what is returned. */
  async function record(engine: TaskEngine): Promise<Seen<number>> {
    const seen = new Seen<number>();
    await engine.work([task('conformance.record', (value: number) => seen.add(value))]);
    return seen;
  }

  test('ready() resolves, also twice', async () => {
    const engine = await openEngine();
    await engine.ready();
    await engine.ready();
  });

  describeIf(
    'enqueueMany',
    'enqueueMany',
    (engine) => engine.enqueueMany(numbers, [[1]]),
    () => {
      test('stores all in their order, which list() and the worker keep', async () => {
        const engine = await openEngine();
        const argLists = Array.from({ length: 30 }, (_, value): [number] => [value]);
        const stored = await engine.enqueueMany(numbers, argLists);
        const listed = await engine.list();
        expect(listed.map(({ id }) => id)).toEqual(stored.map(({ id }) => id).reverse());
        const seen = new Seen<number>();
        await engine.work([task(numbers.name, (value: number) => seen.add(value))], { concurrency: 1 });
        expect(await seen.count(30)).toEqual(argLists.flat());
      });

      test('stores all, with ids in their order, and each runs once', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        const values = Array.from({ length: 250 }, (_, value) => value);
        const stored = await engine.enqueueMany(
          numbers,
          values.map((value) => [value]),
        );
        expect(new Set(stored.map(({ id }) => id)).size).toBe(250);
        for (const [value, { id }] of stored.entries()) {
          expect(await over(engine, id)).toMatchObject({ id, state: 'succeeded', attempts: 1, args: [value] });
        }
        expect([...seen.all].sort((a, b) => a - b)).toEqual(values);
      });

      test('stores none where one is not JSON, or the engine cannot do what an option asks for', async () => {
        const engine = await openEngine();
        const bad = engine.enqueueMany(numbers, [[1], [Number.NaN], [3]]);
        await expect(bad).rejects.toMatchObject({ code: 'ERR_TASK_NOT_SERIALIZABLE' });
        const notLists = engine.enqueueMany(numbers, [1, 2] as unknown as [number][]);
        await expect(notLists).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
        if (can('list')) expect(await engine.list()).toEqual([]);
      });

      test('of no arguments stores nothing', async () => {
        expect(await (await openEngine()).enqueueMany(numbers, [])).toEqual([]);
      });

      if (can('key')) {
        test('with a key stores one task, also where there is one already', async () => {
          const engine = await openEngine();
          const keyed = numbers.with({ key: 'nightly' });
          const stored = await engine.enqueueMany(keyed, [[1], [2], [3]]);
          expect(stored).toHaveLength(3);
          expect(new Set(stored.map(({ id }) => id)).size).toBe(1);
          expect(await engine.enqueueMany(keyed, [[4]])).toEqual([stored[0]]);
        });
      }
    },
  );

  describeIf(
    'list',
    'list',
    (engine) => engine.list(),
    () => {
      test('gives the newest first, by state and name, page by page', async () => {
        const engine = await openEngine();
        const ids: string[] = [];
        for (let value = 0; value < 5; value++) {
          ids.unshift((await send(engine, { name: 'conformance.listed', args: [value] })).id);
        }
        const other = await send(engine, { name: 'conformance.other', args: [] });
        const listed = async (filter?: Parameters<TaskEngine['list']>[0]): Promise<string[]> =>
          (await engine.list(filter)).map(({ id }) => id);
        expect(await listed()).toEqual([other.id, ...ids]);
        expect(await listed({ name: 'conformance.listed' })).toEqual(ids);
        expect(await listed({ name: 'conformance.listed', limit: 2 })).toEqual(ids.slice(0, 2));
        expect(await listed({ name: 'conformance.listed', limit: 2, after: String(ids[1]) })).toEqual(ids.slice(2, 4));
        expect(await listed({ name: 'conformance.listed', limit: 2, offset: 4 })).toEqual(ids.slice(4));
        expect(await listed({ state: 'queued' })).toHaveLength(6);
        expect(await listed({ state: 'failed' })).toEqual([]);
        expect(await listed({ after: 'x' })).toEqual([]);
        await expect(engine.list({ limit: 0 })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
        await expect(engine.list({ state: 'over' as 'queued' })).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });

      test('tells arguments, key, priority and the time it may run, and no result', async () => {
        const engine = await openEngine();
        const start = Date.now();
        const { id } = await send(engine, {
          name: 'conformance.listed',
          args: ['a', [1]],
          ...(can('key') && { key: 'k' }),
          ...(can('priority') && { priority: 7 }),
          ...(can('delay') && { delay: 3_600_000 }),
        });
        const [first] = await engine.list();
        expect(first).toEqual({
          id,
          name: 'conformance.listed',
          state: 'queued',
          attempts: 0,
          args: ['a', [1]],
          ...(can('key') && { key: 'k' }),
          ...(can('priority') && { priority: 7 }),
          ...(can('delay') && { runAt: expect.any(Date) }),
          enqueuedAt: expect.any(Date),
        });
        if (can('delay')) expect(Math.abs(Number(first?.runAt) - start - 3_600_000)).toBeLessThan(10_000);
        expect(await engine.get(id)).toEqual(first);
      });
    },
  );

  describeIf(
    'stats',
    'stats',
    (engine) => engine.stats(),
    () => {
      test('counts by state, and says what is due since when', async () => {
        const engine = await openEngine();
        const none = { queued: 0, due: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0 };
        expect(await engine.stats()).toEqual(none);
        await engine.enqueue(numbers.with({ delay: 3_600_000 }), 0);
        expect(await engine.stats()).toEqual({ ...none, queued: 1 });
        const start = Date.now();
        await engine.enqueue(numbers, 1);
        const waiting = await engine.stats();
        expect(waiting).toEqual({ ...none, queued: 2, due: 1, oldestDueAt: expect.any(Date) });
        expect(Math.abs(Number(waiting.oldestDueAt) - start)).toBeLessThan(10_000);
        const gate = new Gate();
        const started = new Gate();
        const fails = task('conformance.fails', () => {
          throw new Error('fails');
        });
        const waits = task('conformance.waits', () => {
          started.open();
          return gate.opened;
        });
        await engine.work([fails, waits, task('conformance.record', () => {})], { onError: () => {} });
        await engine.enqueue(waits);
        await over(engine, (await engine.enqueue(fails)).id);
        await started.opened;
        await reachesStats(engine, { ...none, queued: 1, running: 1, succeeded: 1, failed: 1 });
        gate.open();
        await reachesStats(engine, { ...none, queued: 1, succeeded: 2, failed: 1 });
      });
    },
  );

  describe('an error', () => {
    if (!can('get')) return;

    test('is kept with its stack', async () => {
      const engine = await openEngine();
      const fails = task('conformance.fails', function whereItFails() {
        throw new TypeError('no such mailbox');
      });
      await engine.work([fails], { onError: () => {} });
      const { error } = await over(engine, (await engine.enqueue(fails)).id);
      expect(error).toEqual({ name: 'TypeError', message: 'no such mailbox', stack: expect.any(String) });
      expect(error?.stack).toContain('whereItFails');
    });

    if (!can('retries')) return;

    test('is told while a retry is due, with the time of that', async () => {
      const engine = await openEngine();
      const fails = task('conformance.fails', () => Promise.reject(new Error('not yet')), {
        retries: backoff(3, 3_600_000),
      });
      await engine.work([fails]);
      const { id } = await engine.enqueue(fails);
      const waiting = await reaches(engine, id, ({ state, attempts }) => state === 'queued' && attempts === 1);
      expect(waiting).toMatchObject({ error: { name: 'Error', message: 'not yet', stack: expect.any(String) } });
      expect(Number(waiting.runAt) - Date.now()).toBeGreaterThan(3_000_000);
    });

    test('that is a NonRetryableError, or caused by one, is the last, and reported once', async () => {
      const engine = await openEngine();
      const { onError, reports } = reporter();
      const causes = [new NonRetryableError('gone'), new Error('wrapped', { cause: new NonRetryableError('gone') })];
      const fails = task(
        'conformance.fails',
        (index: number) => {
          throw causes[index];
        },
        { retries: backoff(3) },
      );
      await engine.work([fails], { onError });
      for (const index of [0, 1]) {
        const failed = await over(engine, (await engine.enqueue(fails, index)).id);
        expect(failed).toMatchObject({ state: 'failed', attempts: 1, error: { message: causes[index]?.message } });
      }
      await reports.count(2);
      expect(reports.all.map(({ error }) => error)).toEqual(causes);
    });
  });

  describeIf(
    'cancel',
    'cancel',
    (engine) => engine.cancel(randomUUID()),
    () => {
      test('a queued task never runs, and frees its key', async () => {
        const engine = await openEngine();
        const sent = (value: number): Sent => ({
          name: 'conformance.record',
          args: [value],
          ...(can('key') && { key: 'k' }),
        });
        const first = await send(engine, sent(1));
        expect(await (await openEngine()).cancel(first.id)).toBe('cancelled');
        const record_ = await engine.get(first.id);
        expect(record_).toMatchObject({ state: 'cancelled', attempts: 0, finishedAt: expect.any(Date) });
        expect(await engine.cancel(first.id)).toBe('over');
        const second = await send(engine, sent(2));
        expect(second.id).not.toBe(first.id);
        const seen = await record(engine);
        await over(engine, second.id);
        expect(seen.all).toEqual([2]);
      });

      test('a delayed task never runs', async () => {
        const engine = await openEngine();
        const { id } = await send(engine, { name: 'conformance.record', args: [1], delay: 500 });
        expect(await engine.cancel(id)).toBe('cancelled');
        expect(await engine.get(id)).not.toHaveProperty('runAt');
        const seen = await record(engine);
        await sleep(1000); // Its time passes.
        expect(seen.all).toEqual([]);
      });

      test('a task that waits for its retry never runs again', async () => {
        const engine = await openEngine();
        const fails = task('conformance.fails', () => Promise.reject(new Error('not yet')), {
          retries: backoff(3, 60_000),
        });
        await engine.work([fails]);
        const { id } = await engine.enqueue(fails);
        await reaches(engine, id, ({ state, attempts }) => state === 'queued' && attempts === 1);
        expect(await engine.get(id)).toHaveProperty('runAt');
        expect(await engine.cancel(id)).toBe('cancelled');
        const cancelled = await engine.get(id);
        expect(cancelled).toMatchObject({ state: 'cancelled', attempts: 1 });
        expect(cancelled).not.toHaveProperty('runAt');
      });

      test('a running task of this process has its signal aborted; it ends as cancelled, neither reported nor retried', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const started = new Seen<AbortSignal | undefined>();
        const waits = task(
          'conformance.waits',
          untilAborted((signal) => started.add(signal)),
          {
            retries: backoff(3),
            ...(can('key') && { key: 'k' }),
          },
        );
        await engine.work([waits], { onError });
        const { id } = await engine.enqueue(waits);
        const signal = await started.next();
        expect(await engine.cancel(id)).toBe('signalled');
        expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 1 });
        expect(signal?.reason).toMatchObject({ name: 'AbortError' });
        if (can('key')) expect((await engine.enqueue(waits)).id).not.toBe(id); // It had kept its key until then.
        expect(reports.all).toEqual([]);
      });

      if (can('processes')) {
        test('a running task of another process is told within 5 s', async () => {
          const engine = await openEngine();
          const { reports } = await startWorkerProcess();
          const { id } = await send(engine, { name: 'conformance.hang', args: [], retries: backoff(3) });
          await reports.first(({ event }) => event === 'hangs');
          const start = Date.now();
          expect(await engine.cancel(id)).toBe('signalled');
          await reports.first(({ event }) => event === 'aborted');
          expect(Date.now() - start).toBeLessThan(6000); // One second for a busy machine.
          expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 1 });
        });
      }

      test('a running task that does not mind succeeds', async () => {
        const engine = await openEngine();
        const started = new Gate();
        const gate = new Gate();
        const stubborn = task('conformance.stubborn', async () => {
          started.open();
          await gate.opened;
          return 'done';
        });
        await engine.work([stubborn]);
        const { id } = await engine.enqueue(stubborn);
        await started.opened;
        expect(await engine.cancel(id)).toBe('signalled');
        gate.open();
        expect(await over(engine, id)).toMatchObject({ state: 'succeeded', result: 'done' });
        expect(await engine.cancel(id)).toBe('over');
      });

      test('a running task that fails before it has heard of it ends as cancelled, and is not reported', async () => {
        const engine = await openEngine();
        const { onError, reports } = reporter();
        const started = new Gate();
        const gate = new Gate();
        const fails = task('conformance.fails', async () => {
          started.open();
          await gate.opened;
          throw new Error('too late');
        });
        await engine.work([fails], { onError });
        const { id } = await engine.enqueue(fails);
        await started.opened;
        expect(await (await openEngine()).cancel(id)).toBe('signalled');
        gate.open();
        expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 1 });
        expect(reports.all).toEqual([]);
      });

      test('a running task that is given back by close() does not run again', async () => {
        const engine = await openEngine();
        const started = new Gate();
        const hangs = task('conformance.hangs', () => {
          started.open();
          return new Promise(() => {});
        });
        const worker = await engine.work([hangs]);
        const { id } = await engine.enqueue(hangs);
        await started.opened;
        expect(await engine.cancel(id)).toBe('signalled');
        await worker.close({ timeout: 0 });
        expect(await over(engine, id)).toMatchObject({ state: 'cancelled' });
      });

      test('undefined for an id that is unknown or cannot be one', async () => {
        const engine = await openEngine();
        expect(await engine.cancel(randomUUID())).toBeUndefined();
        expect(await engine.cancel('x')).toBeUndefined();
      });
    },
  );

  describeIf(
    'retry',
    'retry',
    (engine) => engine.retry({ state: 'failed' }),
    () => {
      test('lets a failed task run again with its id: attempts go on counting, failures from none', async () => {
        const engine = await openEngine();
        let isBroken = true;
        const attempts: unknown[] = [];
        const flaky = task(
          'conformance.flaky',
          () => {
            attempts.push(currentTask()?.attempt);
            if (isBroken || attempts.length < 4) throw new Error('broken');
            return 'repaired';
          },
          { retries: backoff(1) },
        );
        await engine.work([flaky], { onError: () => {} });
        const { id } = await engine.enqueue(flaky);
        expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 2 });
        isBroken = false;
        expect(await engine.retry(id)).toBe(1);
        const repaired = await reaches(engine, id, ({ state }) => state === 'succeeded');
        expect(repaired).toMatchObject({ attempts: 4, result: 'repaired' });
        expect(repaired).not.toHaveProperty('error');
        expect(attempts).toEqual([1, 2, 3, 4]);
        expect(await engine.retry(id)).toBe(0);
      });

      test('by a filter: those that have failed or were cancelled, of a name or all', async () => {
        const engine = await openEngine();
        const fails = task('conformance.fails', () => Promise.reject(new Error('fails')));
        const worker = await engine.work([fails], { onError: () => {} });
        const failed = await engine.enqueueMany(fails, [[], [], []]);
        for (const { id } of failed) await over(engine, id);
        await worker.close();
        const cancelled = await engine.enqueue(numbers, 1);
        await engine.cancel(cancelled.id);
        expect(await engine.retry({ name: 'conformance.record', state: 'failed' })).toBe(0);
        expect(await engine.retry({ state: 'failed' })).toBe(3);
        expect(await engine.retry({ name: 'conformance.record' })).toBe(1);
        for (const { id } of [...failed, cancelled]) expect(await engine.get(id)).toMatchObject({ state: 'queued' });
        await expect(engine.retry({})).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });

      if (can('key')) {
        test('skips one whose key is live again', async () => {
          const engine = await openEngine();
          const keyed = numbers.with({ key: 'k' });
          const first = await engine.enqueue(keyed, 1);
          await engine.cancel(first.id);
          const second = await engine.enqueue(keyed, 2);
          expect(await engine.retry(first.id)).toBe(0);
          expect(await engine.retry({ state: 'cancelled' })).toBe(0);
          await engine.cancel(second.id);
          expect(await engine.retry({ state: 'cancelled' })).toBe(1); // The other one's key is live by then.
        });
      }

      test('0 for an id that is unknown or cannot be one', async () => {
        const engine = await openEngine();
        expect(await engine.retry(randomUUID())).toBe(0);
        expect(await engine.retry('x')).toBe(0);
      });
    },
  );

  describeIf(
    'promote',
    'promote',
    (engine) => engine.promote(randomUUID()),
    () => {
      test('lets a delayed task run now, and one that waits for its retry', async () => {
        const engine = await openEngine();
        const seen = await record(engine);
        const { id } = await engine.enqueue(numbers.with({ delay: 3_600_000 }), 1);
        expect(await (await openEngine()).promote(id)).toBe(true);
        expect(await seen.next()).toBe(1);
        await over(engine, id);
        expect(await engine.promote(id)).toBe(false);
        expect(await engine.promote(randomUUID())).toBe(false);
        expect(await engine.promote((await engine.enqueue(task('conformance.due'))).id)).toBe(false);
        const flaky = task(
          'conformance.flaky',
          () => {
            if (currentTask()?.attempt === 1) throw new Error('not yet');
          },
          { retries: backoff(1, 3_600_000) },
        );
        await engine.work([flaky]);
        const retried = await engine.enqueue(flaky);
        await reaches(engine, retried.id, ({ state, attempts }) => state === 'queued' && attempts === 1);
        expect(await engine.promote(retried.id)).toBe(true);
        expect(await over(engine, retried.id)).toMatchObject({ state: 'succeeded', attempts: 2 });
      });
    },
  );

  describeIf(
    'remove',
    'remove',
    (engine) => engine.remove(randomUUID()),
    () => {
      test('a task that waits or is over, by id or by filter, and none that runs', async () => {
        const engine = await openEngine();
        const keyed = numbers.with(can('key') ? { key: 'k' } : {});
        const first = await engine.enqueue(keyed, 1);
        expect(await engine.remove(first.id)).toBe(1);
        expect(await engine.get(first.id)).toBeUndefined();
        expect(await engine.remove(first.id)).toBe(0);
        // Not due: on BullMQ a task that no worker knows looks for moments as if it ran.
        expect((await engine.enqueue(keyed.with({ delay: 3_600_000 }), 2)).id).not.toBe(first.id);
        const started = new Gate();
        const gate = new Gate();
        const waits = task('conformance.waits', () => {
          started.open();
          return gate.opened;
        });
        const done = task('conformance.done', () => {});
        await engine.work([waits, done]);
        const running = await engine.enqueue(waits);
        await started.opened;
        expect(await engine.remove(running.id)).toBe(0);
        expect(await engine.remove({ name: 'conformance.waits' })).toBe(0);
        for (const { id } of await engine.enqueueMany(done, [[], []])) await over(engine, id);
        expect(await engine.remove({ state: 'succeeded' })).toBe(2);
        expect(await engine.remove({ state: 'queued', name: 'conformance.record' })).toBe(1);
        gate.open();
        expect(await over(engine, running.id)).toMatchObject({ state: 'succeeded' });
        await expect(engine.remove({})).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });

      test('nothing that is no longer in the state that was asked for', async () => {
        const [engine, other] = [await openEngine(), await openEngine()];
        for (const isRetriedFirst of [true, false]) {
          const stored = await engine.enqueueMany(
            numbers,
            Array.from({ length: 300 }, (_, value): [number] => [value]),
          );
          for (const { id } of stored) await engine.cancel(id);
          const calls = [() => engine.retry({ state: 'cancelled' }), () => other.remove({ state: 'cancelled' })];
          const order = isRetriedFirst ? calls : calls.toReversed();
          const counts = await Promise.all(order.map((call) => call()));
          const retried = counts[isRetriedFirst ? 0 : 1];
          expect(await engine.stats()).toMatchObject({ queued: retried, cancelled: 0 });
          await engine.remove({ state: 'queued' });
        }
      });

      test('all that fit, while somebody else removes others', async () => {
        const [engine, other] = [await openEngine(), await openEngine()];
        const others: RemoteTask<[value: number]> = task('conformance.others');
        const args = Array.from({ length: 250 }, (_, value): [number] => [value]);
        for (let part = 0; part < 10; part++) {
          await engine.enqueueMany(numbers, args);
          await engine.enqueueMany(others, args);
        }
        const removed = [engine.remove({ name: numbers.name }), other.remove({ name: others.name, state: 'queued' })];
        expect(await Promise.all(removed)).toEqual([2500, 2500]);
        expect(await engine.list()).toEqual([]);
      });
    },
  );

  if (can('key') && can('work')) {
    describe("whileRunning: 'again'", () => {
      /** A task whose runs wait at a gate each. */
      function waiting(gateOf: () => Gate) {
        const started = new Seen<number>();
        const run = async (value: number): Promise<void> => {
          const gate = gateOf();
          started.add(value);
          await gate.opened;
        };
        return { started, waits: task('conformance.waits', run, { key: 'k', whileRunning: 'again' }) };
      }

      test('stores exactly one more while one runs, with the newest arguments, and runs it afterwards', async () => {
        const engine = await openEngine();
        const gates = new Seen<Gate>();
        const { started, waits } = waiting(() => {
          const gate = new Gate();
          gates.add(gate);
          return gate;
        });
        await engine.work([waits]);
        const first = await engine.enqueue(waits, 1);
        await started.count(1);
        const second = await engine.enqueue(waits, 2);
        expect(second.id).not.toBe(first.id);
        expect(await engine.get(second.id)).toMatchObject({ state: 'queued', attempts: 0 });
        expect(await engine.enqueue(waits, 3)).toEqual(second);
        expect(await engine.enqueue(waits.with({ whileRunning: 'keep' }), 4)).toEqual(first);
        expect(started.all).toEqual([1]);
        (await gates.next()).open();
        await over(engine, first.id);
        await started.count(2);
        (await gates.next()).open();
        await over(engine, second.id);
        expect(started.all).toEqual([1, 3]);
        const third = await engine.enqueue(waits, 5);
        await started.count(3);
        (await gates.next()).open();
        await over(engine, third.id);
      });

      for (const end of ['cancel', 'remove'] as const) {
        test(`the end of the one behind, by ${end}(), leaves the one that runs as it is, and the key to others`, async () => {
          const engine = await openEngine();
          const gate = new Gate();
          const { started, waits } = waiting(() => gate);
          await engine.work([waits]);
          const first = await engine.enqueue(waits, 1);
          await started.count(1);
          const second = await engine.enqueue(waits, 2);
          await (end === 'cancel' ? engine.cancel(second.id) : engine.remove(second.id));
          expect(await engine.get(first.id)).toMatchObject({ state: 'running', attempts: 1 });
          const third = await engine.enqueue(waits, 3);
          gate.open();
          expect(await over(engine, first.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
          expect(await over(engine, third.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
          expect(started.all).toEqual([1, 3]);
        });
      }

      test('waits on where a task is removed that has had the key before', async () => {
        const engine = await openEngine();
        const gates = [new Gate(), new Gate(), new Gate()];
        let runs = 0;
        const { started, waits } = waiting(() => gates[runs++] ?? new Gate());
        gates[0]?.open();
        gates[2]?.open();
        await engine.work([waits]);
        const before = await engine.enqueue(waits, 0);
        await over(engine, before.id);
        const first = await engine.enqueue(waits, 1);
        await started.count(2);
        const second = await engine.enqueue(waits, 2);
        expect(await engine.remove(before.id)).toBe(1);
        expect(await engine.get(first.id)).toMatchObject({ state: 'running' });
        expect(await engine.get(second.id)).toMatchObject({ state: 'queued', attempts: 0 });
        gates[1]?.open();
        for (const { id } of [first, second]) {
          expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
        }
        expect(started.all).toEqual([0, 1, 2]);
      });

      test('has the delay of the newest call, too', async () => {
        const engine = await openEngine();
        const gate = new Gate();
        const { started, waits } = waiting(() => gate);
        await engine.work([waits]);
        await engine.enqueue(waits, 1);
        await started.count(1);
        const second = await engine.enqueue(waits.with({ delay: 3_600_000 }), 2);
        expect(await engine.enqueue(waits, 3)).toEqual(second);
        gate.open();
        await over(engine, second.id);
        expect(started.all).toEqual([1, 3]);
      });

      test('is retried, once cancelled, as soon as its key is free, and holds it then', async () => {
        const engine = await openEngine();
        const gate = new Gate();
        const { started, waits } = waiting(() => gate);
        const worker = await engine.work([waits]);
        const first = await engine.enqueue(waits, 1);
        await started.count(1);
        const second = await engine.enqueue(waits, 2);
        expect(await engine.cancel(second.id)).toBe('cancelled');
        expect(await engine.retry(second.id)).toBe(0);
        gate.open();
        await over(engine, first.id);
        await worker.close();
        expect(await engine.retry(second.id)).toBe(1);
        expect(await engine.enqueue(waits, 3)).toEqual(second);
      });

      test('comes to its turn where the one before it is removed, and goes with it by a filter', async () => {
        const engine = await openEngine();
        const gates = [new Gate(), new Gate()];
        const started = new Seen<number>();
        const run = async (value: number): Promise<void> => {
          started.add(value);
          await gates[value]?.opened;
          throw new Error('not yet');
        };
        const retries = backoff(3, 60_000);
        const fails = task('conformance.fails', run, { key: 'k', whileRunning: 'again', retries });
        await engine.work([fails]);
        const waitsForRetry = ({ state, attempts }: TaskRecord): boolean => state === 'queued' && attempts === 1;
        const first = await engine.enqueue(fails, 0);
        await started.count(1);
        const second = await engine.enqueue(fails, 1);
        gates[0]?.open();
        await reaches(engine, first.id, waitsForRetry);
        expect(await engine.remove(first.id)).toBe(1);
        await started.count(2);
        const third = await engine.enqueue(fails, 2);
        expect(third.id).not.toBe(second.id);
        gates[1]?.open();
        await reaches(engine, second.id, waitsForRetry);
        expect(await engine.remove({ name: fails.name })).toBe(2);
        expect(await engine.list()).toEqual([]);
      });

      test('has the newest arguments also where the first one waits for its retry', async () => {
        const engine = await openEngine();
        const gate = new Gate();
        const started = new Seen<number>();
        const run = async (value: number): Promise<void> => {
          started.add(value);
          if (value !== 0) return;
          await gate.opened;
          throw new Error('not yet');
        };
        const retries = backoff(1, 1000);
        const fails = task('conformance.fails', run, { key: 'k', whileRunning: 'again', retries });
        await engine.work([fails], { onError: () => {} });
        const first = await engine.enqueue(fails, 0);
        await started.count(1);
        const second = await engine.enqueue(fails, 1);
        gate.open();
        await reaches(engine, first.id, ({ state, attempts }) => state === 'queued' && attempts === 1);
        expect(await engine.enqueue(fails.with({ whileRunning: 'keep' }), 3)).toEqual(first);
        expect(await engine.enqueue(fails, 2)).toEqual(second);
        await over(engine, second.id);
        expect(started.all).toEqual([0, 0, 2]);
      });

      test('is refused without a key', async () => {
        const engine = await openEngine();
        const refused = engine.enqueue(numbers.with({ whileRunning: 'again' }), 1);
        await expect(refused).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
      });
    });
  }

  if (can('progress')) {
    describe('progress', () => {
      test('is seen in get() within a second, and the last value is kept', async () => {
        const engine = await openEngine();
        const gate = new Gate();
        const counts = task('conformance.counts', async () => {
          currentTask()?.progress({ percent: 10 });
          await gate.opened;
          currentTask()?.progress({ percent: 99 });
          currentTask()?.progress(100);
        });
        await engine.work([counts]);
        const { id } = await engine.enqueue(counts);
        const seen = await reaches(engine, id, ({ progress }) => progress !== undefined);
        expect(seen).toMatchObject({ state: 'running', progress: { percent: 10 } });
        gate.open();
        expect(await over(engine, id)).toMatchObject({ state: 'succeeded', progress: 100 });
      });

      test('that is no JSON, or too large, is ignored', async () => {
        const engine = await openEngine();
        const reports = task('conformance.reports', async () => {
          currentTask()?.progress('kept');
          currentTask()?.progress(1n);
          currentTask()?.progress('x'.repeat(70_000));
        });
        await engine.work([reports]);
        const { id } = await engine.enqueue(reports);
        expect(await over(engine, id)).toMatchObject({ state: 'succeeded', progress: 'kept' });
      });
    });
  }

  if (can('get')) {
    describe('watch', () => {
      test('yields the record now and after each change, until the task is over, with its result', async () => {
        const engine = await openEngine();
        const gate = new Gate();
        const waits = task('conformance.waits', async () => {
          await gate.opened;
          return 'done';
        });
        const { id } = await engine.enqueue(waits);
        const states = new Seen<TaskRecord>();
        const watched = (async () => {
          for await (const each of (await openEngine()).watch(id)) states.add(each);
        })();
        expect(await states.first(({ state }) => state === 'queued')).toMatchObject({ id, attempts: 0 });
        await engine.work([waits]);
        await states.first(({ state }) => state === 'running');
        gate.open();
        await watched;
        expect(states.all.map(({ state }) => state)).toEqual(['queued', 'running', 'succeeded']);
        expect(states.all.at(-1)).toMatchObject({ id, result: 'done' });
      });

      test('yields nothing for an unknown id, and ends when its signal is aborted', async () => {
        const engine = await openEngine();
        for await (const each of engine.watch(randomUUID())) throw new Error(`it yielded ${each.id}`);
        const { id } = await engine.enqueue(numbers, 1);
        const controller = new AbortController();
        let yielded = 0;
        for await (const _ of engine.watch(id, { signal: controller.signal })) {
          yielded++;
          setImmediate(() => controller.abort());
        }
        expect(yielded).toBe(1);
      });
    });
  }

  describeIf(
    'schedule',
    'schedule',
    (engine) => engine.schedule('a', { cron: '* * * * *' }, numbers, 1),
    () => {
      test('each slot enqueues one task, with several workers of several engines', async () => {
        const engine = await openEngine();
        const other = await openEngine();
        const seen = new Seen<string>();
        const ticks = task('conformance.ticks', (label: string) => seen.add(`${label} ${currentTask()?.id}`));
        await engine.work([ticks]);
        await other.work([ticks]);
        await other.schedule('every second', { cron: '* * * * * *' }, ticks, 'tick');
        await seen.count(3);
        await engine.unschedule('every second');
        const records = await Promise.all(seen.all.map((line) => over(engine, line.slice('tick '.length))));
        const slots = records.map(({ enqueuedAt }) => Math.floor(Number(enqueuedAt) / 1000));
        expect(new Set(seen.all).size).toBe(seen.all.length);
        expect(new Set(slots).size).toBe(slots.length);
      });

      test('is replaced, listed and removed', async () => {
        const engine = await openEngine();
        await engine.schedule('nightly', { cron: '0 3 * * *' }, numbers, 1);
        await engine.schedule('nightly', { cron: '30 4 * * *', timeZone: 'Europe/Berlin' }, numbers, 2);
        await engine.schedule('hourly', { cron: '@hourly' }, numbers, 3);
        const found = await (await openEngine()).schedules();
        expect(found.sort((a, b) => (a.name < b.name ? -1 : 1))).toEqual([
          {
            name: 'hourly',
            cron: '@hourly',
            timeZone: 'UTC',
            task: numbers.name,
            args: [3],
            nextRunAt: expect.any(Date),
          },
          {
            name: 'nightly',
            cron: '30 4 * * *',
            timeZone: 'Europe/Berlin',
            task: numbers.name,
            args: [2],
            nextRunAt: expect.any(Date),
          },
        ]);
        expect(await engine.unschedule('nightly')).toBe(true);
        expect(await engine.unschedule('nightly')).toBe(false);
        expect((await engine.schedules()).map(({ name }) => name)).toEqual(['hourly']);
      });

      test('is made again at each start: a slot that came meanwhile is not lost, until its times change', async () => {
        const engine = await openEngine();
        const nextRunAt = async (): Promise<Date | undefined> => (await engine.schedules())[0]?.nextRunAt;
        await engine.schedule('every second', { cron: '* * * * * *' }, numbers, 1);
        const slot = await nextRunAt();
        await sleep(1500); // Nobody works.
        await engine.schedule('every second', { cron: '* * * * * *' }, numbers, 2);
        expect(await nextRunAt()).toEqual(slot);
        expect(await engine.schedules()).toMatchObject([{ args: [2] }]);
        await engine.schedule('every second', { cron: '0 3 * * *' }, numbers, 2);
        expect(Number(await nextRunAt())).toBeGreaterThan(Number(slot) + 1000);
      });

      const bad: [string, Parameters<TaskEngine['schedule']>[1]][] = [
        ['no pattern', { cron: 'tomorrow' }],
        ['a date', { cron: '2031-01-01T00:00:00' }],
        ['a pattern that never comes', { cron: '0 0 30 2 *' }],
        ['an unknown time zone', { cron: '* * * * *', timeZone: 'Mars/Phobos' }],
      ];
      for (const [what, options] of bad) {
        test(`refuses ${what} with ERR_INVALID_OPTION`, async () => {
          const engine = await openEngine();
          const refused = engine.schedule('bad', options, numbers, 1);
          await expect(refused).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
          expect(await engine.schedules()).toEqual([]);
        });
      }

      test('with a key whose task is live a slot enqueues nothing', async () => {
        const engine = await openEngine();
        const started = new Seen<string | undefined>();
        const gate = new Gate();
        const waits = task(
          'conformance.waits',
          async () => {
            started.add(currentTask()?.id);
            await gate.opened;
          },
          { key: 'k' },
        );
        await engine.work([waits]);
        await engine.schedule('every second', { cron: '* * * * * *' }, waits);
        await started.count(1);
        await sleep(2500); // Two more slots pass.
        expect(started.all).toHaveLength(1);
        await engine.unschedule('every second');
        gate.open();
      });
    },
  );

  if (can('work')) {
    test('health(): true while it works, with what runs, and false once it is closed', async () => {
      const engine = await openEngine();
      const started = new Gate();
      const gate = new Gate();
      const waits = task('conformance.waits', () => {
        started.open();
        return gate.opened;
      });
      const worker = await engine.work([waits]);
      const { id } = await engine.enqueue(waits);
      await started.opened;
      expect(worker.health()).toEqual({ healthy: true, running: 1, lastPollAt: expect.any(Date) });
      gate.open();
      if (can('get')) await over(engine, id);
      await eventually(async () => expect(worker.health().running).toBe(0), 5000);
      await worker.close();
      expect(worker.health()).toMatchObject({ healthy: false, running: 0, reason: 'the worker is closed' });
    });
  }
}

/** A task that goes on until its signal is aborted, and then rejects. */
function untilAborted(onStart: (signal: AbortSignal | undefined) => void): () => Promise<never> {
  return () => {
    const signal = currentTask()?.signal;
    onStart(signal);
    return new Promise((_, reject) => {
      signal?.addEventListener('abort', () => reject(signal.reason));
    });
  };
}

async function reachesStats(engine: TaskEngine, expected: object): Promise<void> {
  await eventually(async () => expect(await engine.stats()).toEqual(expected), 10_000);
}
