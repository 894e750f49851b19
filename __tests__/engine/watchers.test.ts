// watch(): one query for all watchers of an engine.

import { execFile } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { promisify } from 'node:util';
import { createEngine, type EngineDriver } from '../../lib/engine/index.js';
import { type TaskEngine, type TaskRecord, task } from '../../lib/index.js';
import { memory } from '../../lib/testing/index.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts, trackTimeouts } from '../fixtures/timeouts.js';

// Takes the timers of the library from globalThis, where they can be faked.
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const a = task('a', () => 'done');

function engineWith(find: NonNullable<EngineDriver['find']>): TaskEngine {
  return createEngine({ name: 'mine', insert: async ({ id }) => id, find, close: () => {} });
}

function queued(id: string): TaskRecord {
  return { id, name: 'a', state: 'queued', attempts: 0, enqueuedAt: new Date(0) };
}

async function collect(records: AsyncIterable<TaskRecord>): Promise<TaskRecord[]> {
  const seen: TaskRecord[] = [];
  for await (const record of records) seen.push(record);
  return seen;
}

it('asks once an interval for a thousand watchers, and for each task once', async () => {
  const ids = Array.from({ length: 500 }, () => randomUUID());
  const asked: (readonly string[])[] = [];
  let state: TaskRecord['state'] = 'queued';
  const engine = engineWith(async (wanted, { result }) => {
    if (!result) asked.push(wanted);
    return wanted.map((id) => ({ ...queued(id), state }));
  });
  const watches = [...ids, ...ids].map((id) => collect(engine.watch(id)));
  await new Promise((resolve) => setTimeout(resolve, 1000));
  state = 'succeeded';
  for (const seen of await Promise.all(watches)) {
    expect(seen.map((record) => record.state)).toEqual(['queued', 'succeeded']);
  }
  expect(asked.length).toBeLessThanOrEqual(6);
  for (const wanted of asked) expect(wanted).toHaveLength(500);
});

it('stops to ask when nobody watches any more', async () => {
  let asked = 0;
  const engine = engineWith(async (ids) => {
    asked++;
    return ids.map(queued);
  });
  for await (const _ of engine.watch(randomUUID())) break;
  const before = asked;
  await new Promise((resolve) => setTimeout(resolve, 1000));
  expect(asked).toBe(before);
});

it('rejects where the store is away, for each watcher', async () => {
  const engine = engineWith(() => Promise.reject(new Error('gone')));
  for (const watch of [engine.watch(randomUUID()), engine.watch(randomUUID())]) {
    await expect(collect(watch)).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
  }
});

it('ends with an error when the engine is closed', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(a);
  const watched = collect(engine.watch(id));
  await new Promise((resolve) => setTimeout(resolve, 50));
  await engine.close();
  await expect(watched).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
});

it('leaves no timer behind for an iterator that nobody asks any more, once the engine is closed', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(a);
  const waiting = trackTimeouts();
  await engine.watch(id)[Symbol.asyncIterator]().next();
  while (waiting() === 0) await new Promise(setImmediate); // The next look.
  await engine.close();
  expect(waiting()).toBe(0);
});

it('tells each new watcher of the record at once, whoever watches already', async () => {
  fakeTimeouts(); // The looks of those that watch already are 400 ms apart.
  const engine = memory();
  const ids = [await engine.enqueue(a), await engine.enqueue(a)].map(({ id }) => id);
  const watching = engine.watch(ids[0] ?? '')[Symbol.asyncIterator]();
  await watching.next();
  const next = watching.next();
  for (const id of ids) {
    for await (const record of engine.watch(id)) {
      expect(record).toMatchObject({ id, state: 'queued' });
      break;
    }
  }
  await engine.drain([a]);
  jest.advanceTimersByTime(400);
  expect(await next).toMatchObject({ value: { state: 'succeeded' } });
  await watching.return?.();
});

it('tells nothing of before to a watcher whose first look was slow', async () => {
  const id = randomUUID();
  const answers = [deferred<TaskRecord>(), deferred<TaskRecord>()];
  let asked = 0;
  const engine = engineWith(async () => [(await answers[asked++]?.promise) ?? { ...queued(id), state: 'succeeded' }]);
  const other = collect(engine.watch(id)); // Its looks go on meanwhile.
  await new Promise((resolve) => setTimeout(resolve, 10));
  const seen = collect(engine.watch(id));
  await new Promise((resolve) => setTimeout(resolve, 10));
  answers[0]?.resolve({ ...queued(id), state: 'running' });
  await new Promise((resolve) => setTimeout(resolve, 600));
  answers[1]?.resolve(queued(id));
  expect((await seen).map(({ state }) => state)).toEqual(['queued', 'succeeded']);
  expect((await other).map(({ state }) => state)).toEqual(['running', 'succeeded']);
});

it('keeps the process up while it is waited for, and no longer', async () => {
  const program = (rest: string): string => `
    const { task } = require('./lib/index.ts');
    const { memory } = require('./lib/testing/index.ts');
    (async () => {
      const engine = memory();
      const { id } = await engine.enqueue(task('a', () => 'done'));
      const watch = engine.watch(id)[Symbol.asyncIterator]();
      await watch.next();
      ${rest}
    })();`;
  const run = async (rest: string): Promise<string> => {
    const args = ['--import', 'tsx', '--eval', program(rest)];
    const { stdout } = await promisify(execFile)(process.execPath, args, {
      cwd: join(__dirname, '../..'),
      timeout: 30_000,
    });
    return stdout.trim();
  };
  const [abandoned, awaited] = await Promise.all([
    run(`console.log('left');`),
    run(`void watch.next().then(() => console.log('told')); setTimeout(() => engine.cancel(id), 500).unref();`),
  ]);
  expect([abandoned, awaited]).toEqual(['left', 'told']);
});

it('goes on where a task that was over has been queued anew by the time its result is read', async () => {
  const id = randomUUID();
  const states: TaskRecord['state'][] = ['failed', 'queued', 'queued', 'succeeded', 'succeeded'];
  const asked: boolean[] = [];
  const engine = engineWith(async (_ids, { result }) => {
    asked.push(result);
    return [{ ...queued(id), state: states[asked.length - 1] ?? 'succeeded' }];
  });
  expect((await collect(engine.watch(id))).map(({ state }) => state)).toEqual(['queued', 'succeeded']);
  expect(asked).toEqual([false, true, false, false, true]);
});

it('tells of the end as it was seen where no result is wanted', async () => {
  const id = randomUUID();
  const asked: boolean[] = [];
  const engine = engineWith(async (_ids, { result }) => {
    asked.push(result);
    return [{ ...queued(id), state: 'failed' }];
  });
  expect(await collect(engine.watch(id, { result: false }))).toEqual([{ ...queued(id), state: 'failed' }]);
  expect(asked).toEqual([false]);
});

it('leaves no listener on the signal, and looks for nobody who has left before the first look', async () => {
  const find = jest.fn(async (ids: readonly string[]) => ids.map(queued));
  const engine = engineWith(find);
  const controller = new AbortController();
  const remove = jest.spyOn(controller.signal, 'removeEventListener');
  const add = jest.spyOn(controller.signal, 'addEventListener');
  const watched = collect(engine.watch(randomUUID(), { signal: controller.signal }));
  controller.abort();
  expect(await watched).toEqual([]);
  await new Promise((resolve) => setTimeout(resolve, 10));
  expect(find).not.toHaveBeenCalled();
  expect(remove.mock.calls).toEqual(add.mock.calls);
});

it('does not begin with a signal that is aborted already', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(a);
  expect(await collect(engine.watch(id, { signal: AbortSignal.abort() }))).toEqual([]);
});

it('finds an id in upper case, and refuses bad options and an engine that cannot tell', async () => {
  const engine = memory();
  const { id } = await engine.enqueue(a);
  const controller = new AbortController();
  for await (const record of engine.watch(id.toUpperCase(), { signal: controller.signal })) {
    expect(record.id).toBe(id);
    controller.abort();
  }
  const bad = { signal: 'now' } as unknown as { signal: AbortSignal };
  expect(() => engine.watch(id, bad)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
  const mute = createEngine({ name: 'mine', insert: async () => id, close: () => {} });
  expect(() => mute.watch(id)).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
});
