// Workers of the SQLite engine.

import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { sqlite } from '../../lib/drivers/sqlite/index.js';
import { currentTask, type TaskRecord, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { fakeTimeouts } from '../fixtures/timeouts.js';
import { send } from './fixtures/send.js';
import { block, over, reaches, rowsIn, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

describeWith({ node: 22 }, 'workers on SQLite', () => {
  const { connect, newPath, open } = sqliteFolder();

  it('of the same process are woken at once, also for a delayed task and for a retry', async () => {
    const engine = open({ path: newPath(), pollInterval: 1_000_000 });
    const start = Date.now();
    const flaky = task('a', () => {
      if (currentTask()?.attempt === 1) throw new Error('not yet');
      return Date.now() - start;
    });
    await engine.work([flaky]);
    await sleep(20); // The first look at the table is over.
    const retries = { limit: 1, minDelay: 30, maxDelay: 30, factor: 1, jitter: false };
    const { id } = await send(engine, { name: 'a', args: [], delay: 50, retries });
    const { result } = await over(engine, id);
    expect(result).toBeGreaterThanOrEqual(80);
  });

  it('of other processes poll', async () => {
    const path = newPath();
    const engine = open({ path, pollInterval: 20 });
    await engine.work([task('a', () => 'ran')]);
    await sleep(20);
    const id = await enqueueFromAfar(path, 'a');
    expect(await over(engine, id)).toMatchObject({ result: 'ran' });
  });

  it('run more tasks than one transaction takes, at any concurrency', async () => {
    const engine = open({ path: newPath(), pollInterval: 1_000_000, lease: 1_000_000 });
    const ids = await Promise.all(Array.from({ length: 250 }, () => send(engine, { name: 'a', args: [] })));
    let running = 0;
    const gate = deferred();
    const waits = task('a', () => {
      if (++running === 250) gate.resolve();
      return gate.promise;
    });
    await engine.work([waits], { concurrency: Number.POSITIVE_INFINITY });
    for (const { id } of ids) expect(await over(engine, id)).toMatchObject({ attempts: 1 });
  });

  it('take tasks of several names by priority and age', async () => {
    const engine = open({ path: newPath() });
    const ran: string[] = [];
    const names = ['b', 'a', 'c', 'a', 'b'];
    let last = '';
    for (const [index, name] of names.entries()) {
      last = (await send(engine, { name, args: [index], priority: name === 'c' ? 1 : 0 })).id;
    }
    const tasks = ['a', 'b', 'c'].map((name) => task(name, (index: number) => ran.push(`${name}${index}`)));
    await engine.work(tasks, { concurrency: 1 });
    await over(engine, last);
    expect(ran).toEqual(['c2', 'b0', 'a1', 'a3', 'b4']);
  });

  it('let the event loop turn between synchronous tasks', async () => {
    const engine = open({ path: newPath() });
    let turns = 0;
    let counts = true;
    const count = (): void => {
      turns++;
      if (counts) setImmediate(count);
    };
    count();
    const seen: number[] = [];
    const blocks = task('a', () => {
      seen.push(turns);
      block(6);
    });
    const ids = await Promise.all(Array.from({ length: 5 }, () => send(engine, { name: 'a', args: [] })));
    await engine.work([blocks]);
    for (const { id } of ids) await over(engine, id);
    counts = false;
    expect(new Set(seen).size).toBe(5);
  });

  it('tasks that were taken and had not begun when it closes are given back as if they had not been taken', async () => {
    const engine = open({ path: newPath() });
    const stores = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    let closed: Promise<void> | undefined;
    const blocks = task('a', () => {
      seen.push(stores.getStore());
      block(6);
      closed ??= stores.run('the store of who closes', () => worker.close());
    });
    const ids = await Promise.all(Array.from({ length: 5 }, () => send(engine, { name: 'a', args: [] })));
    const worker = await engine.work([blocks]);
    while (closed === undefined) await sleep(5); // The first one runs.
    await closed;
    await worker.close(); // Inside the task it did not wait for it.
    expect(seen).toEqual([undefined]);
    const [first, ...others] = await Promise.all(ids.map(({ id }) => engine.get(id)));
    expect(first).toMatchObject({ state: 'succeeded', attempts: 1 });
    for (const { id, name, enqueuedAt } of others as TaskRecord[]) {
      expect(others).toContainEqual({ id, name, state: 'queued', attempts: 0, args: [], enqueuedAt });
    }
    await engine.work([task('a', () => {})]);
    for (const { id } of ids) expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
  });

  it('one that was woken while it closed leaves no timer', async () => {
    fakeTimeouts();
    const engine = open({ path: newPath() });
    const worker = await engine.work([task('a', () => {})]);
    const enqueued = send(engine, { name: 'a', args: [] });
    await worker.close();
    const { id } = await enqueued;
    await turn();
    expect(jest.getTimerCount()).toBe(0);
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
  });

  it('a task may enqueue others, also while the engine closes', async () => {
    const path = newPath();
    const engine = open({ path });
    const running = deferred();
    const follows = task('first', async () => {
      running.resolve();
      await sleep(50);
      return send(engine, { name: 'second', args: [] });
    });
    await engine.work([follows]);
    const { id } = await send(engine, { name: 'first', args: [] });
    await running.promise;
    await engine.close();
    const record = await open({ path }).get(id);
    expect(record).toMatchObject({ state: 'succeeded', result: { id: expect.any(String) } });
    expect(rowsIn(connect(path, { readonly: true }))).toBe(2);
  });

  it('one that is given back is taken by another worker of the process without a poll', async () => {
    const engine = open({ path: newPath(), pollInterval: 1_000_000 });
    const running = deferred();
    const hangsFirst = task('a', () => {
      if (currentTask()?.attempt !== 1) return 'in the end';
      running.resolve();
      return new Promise(() => {});
    });
    const { id } = await send(engine, { name: 'a', args: [] });
    const worker = await engine.work([hangsFirst]);
    await running.promise;
    await engine.work([hangsFirst]);
    await sleep(20);
    await worker.close({ timeout: 0 });
    expect(await over(engine, id)).toMatchObject({ attempts: 2, result: 'in the end' });
  });

  it('a task that another worker of the process knows is not reported', async () => {
    const engine = open({ path: newPath() });
    const errors: unknown[] = [];
    const onError = (error: unknown): void => void errors.push(error);
    const ended = deferred();
    await engine.work([task('a', () => {})], { onError });
    await engine.work([task('b', () => ended.promise)], { concurrency: 1, onError });
    await send(engine, { name: 'b', args: [] });
    await send(engine, { name: 'b', args: [] }); // Waits.
    await send(engine, { name: 'c', args: [] });
    while (errors.length === 0) await sleep(20);
    ended.resolve();
    for (const error of errors) expect(error).toMatchObject({ message: expect.stringContaining('"c"') });
  });

  it('run tasks and reports with the AsyncLocalStorage stores of the work() call, not those of an enqueue', async () => {
    const stores = new AsyncLocalStorage<string>();
    const seen: unknown[] = [];
    const fails = task('a', async () => {
      seen.push(stores.getStore());
      stores.enterWith('of another task');
      await turn();
      throw new Error('again');
    });
    const engine = open({ path: newPath() });
    const onError = (): void => void seen.push(stores.getStore());
    await stores.run('of work()', () => engine.work([fails], { onError }));
    const retries = { limit: 1, minDelay: 20, maxDelay: 20, factor: 1, jitter: false };
    const options = [{}, {}, {}, { delay: 50 }, { retries }];
    await Promise.all(
      options.map((option, index) =>
        stores.run(`of request ${index}`, () => send(engine, { name: 'a', args: [], ...option })),
      ),
    );
    while (seen.length < 11) await sleep(10);
    expect(seen).toEqual(Array(11).fill('of work()'));
  });

  it('nor does a commit keep the stores of an enqueue', async () => {
    const stores = new AsyncLocalStorage<string>();
    const seen = new Set<unknown>();
    const engine = open({ database: connect(newPath(), { verbose: () => void seen.add(stores.getStore()) }) });
    await stores.run('of a request', () => send(engine, { name: 'a', args: [] }));
    expect([...seen]).toEqual([undefined]);
  });

  it('a row that somebody else has spoiled makes its task fail, and nothing else', async () => {
    const path = newPath();
    const engine = open({ path });
    const { id } = await send(engine, { name: 'a', args: [] });
    connect(path).exec("UPDATE background_tasks SET args = 'no JSON'");
    await engine.work([task('a', () => {})], { onError: () => {} });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', error: { name: 'SyntaxError' } });
  });

  describe('a database that cannot be written', () => {
    it('is told to the logger of a worker, once, and the worker goes on when it can be used again', async () => {
      const path = newPath();
      const engine = open({ path, pollInterval: 10 });
      const error = jest.fn();
      const ran = deferred<string>();
      await engine.work([task('a', (text: string) => ran.resolve(text))], { logger: { error } });
      const other = connect(path);
      other.exec('ALTER TABLE background_tasks RENAME TO away');
      while (error.mock.calls.length === 0) await sleep(10);
      await sleep(100);
      const message = 'A worker of background tasks cannot reach its store, and tries again';
      expect(error.mock.calls).toEqual([[{ err: expect.objectContaining({ code: 'SQLITE_ERROR' }) }, message]]);

      other.exec('ALTER TABLE away RENAME TO background_tasks');
      await send(engine, { name: 'a', args: ['again'] });
      expect(await ran.promise).toBe('again');
    });

    it('the end of a task is written down once it can be again', async () => {
      const path = newPath();
      const engine = open({ path });
      const other = connect(path);
      await engine.work([task('a', () => void other.exec('BEGIN IMMEDIATE'))]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await reaches(engine, id, ({ state }) => state === 'running');
      await sleep(50);
      expect(await engine.get(id)).toMatchObject({ state: 'running' });
      other.exec('COMMIT');
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it('also where it is broken in another way', async () => {
      const path = newPath();
      const engine = open({ path });
      const other = connect(path);
      const breaks = task('a', () => {
        other.exec('ALTER TABLE background_tasks RENAME TO elsewhere');
        started.resolve();
      });
      const started = deferred();
      await engine.work([breaks]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await started.promise;
      await sleep(50);
      other.exec('ALTER TABLE elsewhere RENAME TO background_tasks');
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it('close() does not wait for it for ever: the task runs again elsewhere', async () => {
      const path = newPath();
      const engine = open({ path, lease: 100 });
      const other = connect(path);
      const hasBegun = deferred();
      const locks = task('a', () => {
        other.exec('BEGIN IMMEDIATE');
        hasBegun.resolve();
      });
      await engine.work([locks]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await hasBegun.promise;
      await engine.close();
      other.exec('COMMIT');
      const next = open({ path, lease: 100 });
      await next.work([task('a', () => 'again')]);
      expect(await over(next, id)).toMatchObject({ attempts: 2, result: 'again' });
    }, 15_000);

    it('a worker that finds it broken goes on once it is mended', async () => {
      const path = newPath();
      const database = connect(path);
      const engine = open({ database, pollInterval: 20 });
      await engine.work([task('a', () => 'ran')]);
      await sleep(30);
      database.exec('ALTER TABLE background_tasks RENAME TO elsewhere');
      await sleep(100);
      await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      await expect(engine.get(randomUUID())).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      database.exec('ALTER TABLE elsewhere RENAME TO background_tasks');
      const { id } = await send(engine, { name: 'a', args: [] });
      expect(await over(engine, id)).toMatchObject({ result: 'ran' });
    });
  });

  /** Enqueues without a word to the workers of this process, as another process would. */
  async function enqueueFromAfar(path: string, name: string): Promise<string> {
    const engine = sqlite({ path });
    const { id } = await send(engine, { name, args: [] });
    await engine.close();
    return id;
  }
});
