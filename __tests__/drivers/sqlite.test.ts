// The SQLite engine: what only this engine promises.

import { AsyncLocalStorage } from 'node:async_hooks';
import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import Database from 'better-sqlite3';
import express from 'express';
import { type SqliteDatabase, type SqliteOptions, sqlite } from '../../lib/drivers/sqlite/index.js';
import { backgroundTasks, currentTask, type TaskEngine, type TaskRecord, task, taskStatus } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { serve } from '../fixtures/serve.js';
import { fakeTimeouts } from '../fixtures/timeouts.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const directory = mkdtempSync(join(tmpdir(), 'tasks-'));
let files = 0;

function newPath(): string {
  return join(directory, `${++files}.db`);
}

afterAll(() => rmSync(directory, { recursive: true }));

if (Number.parseInt(process.versions.node, 10) < 22) {
  it('better-sqlite3 13 on an older Node.js is refused with ERR_ENGINE_UNAVAILABLE, before it ends the process', () => {
    expect(() => sqlite({ path: newPath() })).toThrow(
      expect.objectContaining({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: 'sqlite: better-sqlite3 13 needs Node.js 22 or later; on Node.js 20 install better-sqlite3@12',
      }),
    );
  });
}

describeWith({ node: 22 }, 'sqlite', () => {
  const engines: TaskEngine[] = [];
  const databases: Database.Database[] = [];

  function open(options: SqliteOptions): TaskEngine {
    const engine = sqlite(options);
    engines.push(engine);
    return engine;
  }

  /** A connection besides those of the engines. */
  function connect(path: string, options: Database.Options = {}): Database.Database {
    const database = new Database(path, options);
    databases.push(database);
    return database;
  }

  afterEach(async () => {
    for (const database of databases) if (database.open && database.inTransaction) database.exec('ROLLBACK');
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
    for (const database of databases.splice(0)) database.close();
  });

  function over(engine: TaskEngine, id: string): Promise<TaskRecord> {
    return reaches(engine, id, ({ state }) => state === 'succeeded' || state === 'failed');
  }

  async function reaches(engine: TaskEngine, id: string, fits: (record: TaskRecord) => boolean): Promise<TaskRecord> {
    for (;;) {
      const record = await engine.get(id);
      if (record !== undefined && fits(record)) return record;
      await sleep(5);
    }
  }

  /** Enqueues without a word to the workers of this process, as another process would. */
  async function enqueueFromAfar(path: string, name: string): Promise<string> {
    const engine = sqlite({ path });
    const { id } = await send(engine, { name, args: [] });
    await engine.close();
    return id;
  }

  function rowsOf(path: string): number {
    const database = connect(path, { readonly: true });
    const row = database.prepare('SELECT count(*) AS count FROM background_tasks').get() as { count: number };
    return row.count;
  }

  const refuseBad = `CREATE TRIGGER refuse_bad BEFORE INSERT ON background_tasks WHEN NEW.name = 'bad'
    BEGIN SELECT RAISE(FAIL, 'refused'); END`;

  describe('options', () => {
    const bad: [unknown, string][] = [
      [undefined, 'the options must be an object'],
      [{}, 'either "path" or "database"'],
      [{ path: 'a', database: {} }, '"database" must be a database of better-sqlite3'],
      [{ path: '' }, '"path" must be the name of a file'],
      [{ path: 7 }, '"path" must be the name of a file'],
      [{ path: 'a', lease: 0 }, '"lease" must be milliseconds'],
      [{ path: 'a', pollInterval: Number.POSITIVE_INFINITY }, '"pollInterval" must be milliseconds'],
      [{ path: 'a', retention: -1 }, '"retention" must be milliseconds'],
      [{ path: 'a', file: 'b' }, 'unknown option "file"'],
      [{ database: null }, '"database" must be a database of better-sqlite3'],
    ];
    it.each(bad)('%p is refused', (options, message) => {
      expect(() => sqlite(options as SqliteOptions)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
      );
    });

    it('both a path and a database are refused, and a database that is read-only or in a transaction', () => {
      const path = newPath();
      const database = connect(path);
      // @ts-expect-error: one of them only.
      expect(() => sqlite({ path, database })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
      database.exec('BEGIN');
      expect(() => sqlite({ database })).toThrow(/transaction open/);
      database.exec('CREATE TABLE a (b)');
      database.exec('COMMIT');
      expect(() => sqlite({ database: connect(path, { readonly: true }) })).toThrow(/read-only/);
    });

    it('a file that cannot be opened throws ERR_ENGINE_UNAVAILABLE with its name and the cause', () => {
      const path = newPath();
      writeFileSync(path, 'this is no database, '.repeat(1000));
      for (const [file, reason] of [
        [path, 'file is not a database'],
        [join(directory, 'missing', 'a.db'), 'directory does not exist'],
      ] as const) {
        expect(() => sqlite({ path: file })).toThrow(
          expect.objectContaining({
            code: 'ERR_ENGINE_UNAVAILABLE',
            message: expect.stringContaining(`"${file}" cannot be opened: `),
            cause: expect.objectContaining({ message: expect.stringContaining(reason) }),
          }),
        );
      }
    });
  });

  describe('the file', () => {
    it('is in WAL mode', () => {
      const path = newPath();
      open({ path });
      expect(connect(path).pragma('journal_mode', { simple: true })).toBe('wal');
    });

    it('promise 1: a commit with an enqueue waits for the disk; those with nothing but the work of workers need not', async () => {
      const pragmas = jest.spyOn(Database.prototype, 'pragma');
      const last = (): unknown => pragmas.mock.lastCall?.[0];
      const engine = open({ path: newPath() });
      await engine.work([task('a', () => {})]);
      for (let round = 0; round < 3; round++) {
        const { id } = await send(engine, { name: 'a', args: [] });
        expect(last()).toBe('synchronous = FULL');
        await over(engine, id);
        expect(last()).toBe('synchronous = NORMAL');
      }
      pragmas.mockRestore();
    });

    it('keeps tasks while no program runs', async () => {
      const path = newPath();
      const first = open({ path });
      const { id } = await send(first, { name: 'a', args: [1] });
      await first.close();
      expect(await open({ path }).get(id)).toMatchObject({ id, state: 'queued' });
    });

    it('has no log beside it after close()', async () => {
      const path = newPath();
      const engine = open({ path });
      await send(engine, { name: 'a', args: [1] });
      await engine.close();
      expect(connect(path).pragma('integrity_check', { simple: true })).toBe('ok');
      expect(rowsOf(path)).toBe(1);
    });

    it('of a newer version of the library is refused, and nothing in it changed', () => {
      const path = newPath();
      const database = connect(path);
      database.exec('CREATE TABLE background_tasks_schema (version); INSERT INTO background_tasks_schema VALUES (99)');
      expect(() => sqlite({ path })).toThrow(
        expect.objectContaining({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: expect.stringContaining('version 99, made by a newer release'),
        }),
      );
      expect(database.prepare('SELECT name FROM sqlite_master').pluck().all()).toEqual(['background_tasks_schema']);
    });

    it('opens again and again with the same version', () => {
      const path = newPath();
      for (let count = 0; count < 3; count++) open({ path });
      expect(connect(path).prepare('SELECT version FROM background_tasks_schema').pluck().all()).toEqual([2]);
    });

    it('may be in memory', async () => {
      const pragmas = jest.spyOn(Database.prototype, 'pragma');
      const engine = open({ path: ':memory:' });
      await engine.work([task('a', () => 'ran')]);
      const { id } = await send(engine, { name: 'a', args: [] });
      expect(await over(engine, id)).toMatchObject({ result: 'ran' });
      // Where there is no WAL, less than FULL could spoil the file.
      expect(pragmas.mock.calls.flat()).not.toContain('synchronous = NORMAL');
      pragmas.mockRestore();
    });
  });

  describe('group commit', () => {
    it('all enqueues of one turn of the event loop share a commit, with the worker that takes them', async () => {
      const { database, commits } = counting(connect(newPath()));
      const engine = open({ database });
      const enqueue = (): Promise<{ id: string }> => send(engine, { name: 'a', args: [] });
      commits.count = 0;
      jest.spyOn(performance, 'now').mockReturnValue(performance.now()); // However slow the machine: one time slice.
      await Promise.all(Array.from({ length: 32 }, enqueue));
      expect(commits.count).toBe(1);
      await Promise.all([enqueue(), enqueue()]);
      expect(commits.count).toBe(2);
      await enqueue();
      await enqueue();
      expect(commits.count).toBe(4);
      let ran = 0;
      await engine.work([task('b', () => ran++)], { concurrency: 50 });
      await Promise.all([turn(), sleep(20)]);
      commits.count = 0;
      const ids = await Promise.all(Array.from({ length: 32 }, () => send(engine, { name: 'b', args: [] })));
      for (const { id } of ids) await over(engine, id);
      expect(ran).toBe(32);
      expect(commits.count).toBe(2);
    });

    it('very many are written by time slice, and the event loop gets its turn in between', async () => {
      const { database, commits } = counting(connect(newPath()));
      const engine = open({ database });
      let time = performance.now();
      jest.spyOn(performance, 'now').mockImplementation(() => ++time);
      let turns = 0;
      const count = (): void => {
        turns++;
        counter = setImmediate(count);
      };
      let counter = setImmediate(count);
      commits.count = 0;
      const ids = await Promise.all(Array.from({ length: 100 }, () => send(engine, { name: 'a', args: [] })));
      clearImmediate(counter);
      expect(new Set(ids.map(({ id }) => id)).size).toBe(100);
      expect(commits.count).toBeGreaterThan(10);
      expect(turns).toBeGreaterThanOrEqual(commits.count - 1);
    });

    it.each([
      ['the first', [0]],
      ['the last', [1999]],
      ['some', [3, 700, 701, 1500]],
    ])('of very many %s cannot be written, which is found in a few transactions', async (_, bad) => {
      const { database, commits } = counting(connect(newPath()));
      const engine = open({ database });
      database.exec(refuseBad);
      commits.count = 0;
      const results = await Promise.allSettled(
        Array.from({ length: 2000 }, (_, index) => send(engine, { name: bad.includes(index) ? 'bad' : 'a', args: [] })),
      );
      expect(results.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))).toEqual(bad);
      expect(commits.count).toBeLessThan(500);
    });

    it('what is not written within 5 seconds behind very many others is rejected, and not stored later', async () => {
      const database = connect(newPath());
      database.function('pause', () => block(50));
      const engine = open({ database });
      database.exec('CREATE TRIGGER slow BEFORE INSERT ON background_tasks BEGIN SELECT pause(); END');
      const results = await Promise.allSettled(
        Array.from({ length: 150 }, () => send(engine, { name: 'a', args: [] })),
      );
      await sleep(500);
      const ids = results.flatMap((result) => (result.status === 'fulfilled' ? [result.value.id] : []));
      expect(ids.length).toBeLessThan(150);
      expect(database.prepare('SELECT id FROM background_tasks ORDER BY seq').pluck().all()).toEqual(ids);
    });

    it('if none of very many can be written, all are rejected', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      database.exec(refuseBad);
      const results = await Promise.allSettled(
        Array.from({ length: 2000 }, () => send(engine, { name: 'bad', args: [] })),
      );
      expect(results.every(({ status }) => status === 'rejected')).toBe(true);
      await expect(send(engine, { name: 'a', args: [] })).resolves.toHaveProperty('id');
    });

    it('waits for the transaction of another process without blocking the event loop', async () => {
      const path = newPath();
      const engine = open({ path });
      const other = connect(path);
      other.exec('BEGIN IMMEDIATE');
      let settled = false;
      const enqueued = send(engine, { name: 'a', args: [] }).finally(() => {
        settled = true;
      });
      await sleep(100);
      expect(settled).toBe(false);
      other.exec('ROLLBACK');
      await expect(enqueued).resolves.toHaveProperty('id');
    });

    it('a task that cannot be written does not take its neighbours with it', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      database.exec(refuseBad);
      const results = await Promise.allSettled([
        send(engine, { name: 'a', args: [] }),
        send(engine, { name: 'bad', args: [] }),
        send(engine, { name: 'a', args: [] }),
      ]);
      expect(results.map(({ status }) => status)).toEqual(['fulfilled', 'rejected', 'fulfilled']);
      expect(results[1]).toMatchObject({ reason: { code: 'ERR_ENGINE_UNAVAILABLE' } });
    });

    it('a full disk rejects with ERR_ENGINE_UNAVAILABLE and the cause at once; once there is room it works again', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      const pages = Number(database.pragma('page_count', { simple: true }));
      database.pragma(`max_page_count = ${pages}`);
      const rejected = Promise.allSettled(
        Array.from({ length: 3 }, () => send(engine, { name: 'a', args: ['x'.repeat(100_000)] })),
      );
      for (const result of await rejected) {
        expect(result).toMatchObject({ reason: { code: 'ERR_ENGINE_UNAVAILABLE', cause: { code: 'SQLITE_FULL' } } });
      }
      database.pragma(`max_page_count = ${pages + 1000}`);
      await send(engine, { name: 'a', args: ['x'.repeat(100_000)] });
    });
  });

  describe('text that UTF-8 does not have', () => {
    it('in a name is refused with ERR_INVALID_OPTION: no worker would find it', async () => {
      await expect(send(open({ path: newPath() }), { name: 'a\ud800', args: [] })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: 'sqlite: "name" is not possible: it has half a surrogate pair',
      });
    });

    it('in a key differs from any other', async () => {
      const engine = open({ path: newPath() });
      const enqueue = async (key: string): Promise<string> => (await send(engine, { name: 'a', args: [], key })).id;
      const keys = ['k\ud800', 'k\ud801', 'k\ufffd', 'k\ud800'];
      const [first, second, third, again] = await Promise.all(keys.map(enqueue));
      expect(again).toBe(first);
      expect(new Set([first, second, third]).size).toBe(3);
    });
  });

  it('close() waits for a running task without a limit', async () => {
    const engine = open({ path: newPath(), pollInterval: 50 });
    const [running, ended] = [deferred(), deferred()];
    const waits = task('a', () => {
      running.resolve();
      return ended.promise;
    });
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'a', args: [] });
    await running.promise;
    const timeouts = jest.spyOn(globalThis, 'setTimeout');
    const closed = engine.close();
    await sleep(100);
    expect(await engine.get(id)).toMatchObject({ state: 'running' });
    ended.resolve();
    await closed;
    // None after which it would be given back: the longest is the deadline of get().
    for (const [, delay] of timeouts.mock.calls) expect(delay).toBeLessThanOrEqual(4500);
  });

  it('close() waits for enqueues that are under way', async () => {
    const path = newPath();
    const engine = open({ path });
    const enqueued = send(engine, { name: 'a', args: [] });
    await engine.close();
    await expect(enqueued).resolves.toHaveProperty('id');
    expect(rowsOf(path)).toBe(1);
  });

  describe("the application's own database", () => {
    it('that is locked when the table is to be made throws ERR_ENGINE_UNAVAILABLE', () => {
      const path = newPath();
      connect(path).exec('BEGIN EXCLUSIVE');
      expect(() => sqlite({ database: connect(path, { timeout: 0 }) })).toThrow(
        expect.objectContaining({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: 'sqlite: the database cannot be used: SqliteError: database is locked',
        }),
      );
    });

    it('an enqueue inside its transaction commits with it, at once and not before', async () => {
      const path = newPath();
      const database = connect(path);
      database.exec('CREATE TABLE orders (id)');
      const engine = open({ database });
      await engine.work([task('a', () => 'ran')]);
      const afar = connect(path);
      const orders = afar.prepare('SELECT count(*) FROM orders').pluck();
      const tasks = afar.prepare('SELECT count(*) FROM background_tasks').pluck();
      let enqueued: Promise<{ id: string }> | undefined;
      database.transaction(() => {
        database.exec('INSERT INTO orders VALUES (1)');
        enqueued = send(engine, { name: 'a', args: [] });
        expect([orders.get(), tasks.get()]).toEqual([0, 0]);
      })();
      expect([orders.get(), tasks.get()]).toEqual([1, 1]);
      const id = (await enqueued)?.id ?? '';
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', result: 'ran' });
    });

    it('an enqueue inside its transaction is undone with it', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      let ran = 0;
      await engine.work([task('a', () => ran++)]);
      let enqueued: Promise<{ id: string }> | undefined;
      const failing = database.transaction(() => {
        enqueued = send(engine, { name: 'a', args: [], key: 'k' });
        throw new Error('no such customer');
      });
      expect(failing).toThrow('no such customer');
      const undone = (await enqueued)?.id ?? '';
      expect(await engine.get(undone)).toBeUndefined();
      const { id } = await send(engine, { name: 'a', args: [], key: 'k' }); // The key is free.
      expect(id).not.toBe(undone);
      await over(engine, id);
      expect(ran).toBe(1);
    });

    it('rejects where the insert fails in the transaction', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      database.exec(refuseBad);
      database.exec('BEGIN');
      await expect(send(engine, { name: 'bad', args: [] })).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      database.exec('ROLLBACK');
    });

    it('works for Express: the order and its task are stored together or not at all', async () => {
      const path = newPath();
      const database = connect(path);
      database.exec('CREATE TABLE orders (id)');
      const engine = open({ database });
      const bill = task('bill', (order: number) => `billed ${order}`);
      await engine.work([bill]);
      const app = express();
      app.use(backgroundTasks({ engine }));
      app.post('/orders/:id', async (req, res) => {
        const order = Number(req.params.id);
        let billing: Promise<{ id: string }> | undefined;
        database.transaction(() => {
          database.prepare('INSERT INTO orders VALUES (?)').run(order);
          billing = res.locals.backgroundTasks.enqueue(bill, order);
          if (order < 0) throw new Error('no such order');
        })();
        res.status(202).json(await billing);
      });
      const onError: express.ErrorRequestHandler = (_error, _req, res, _next) => void res.sendStatus(500);
      app.use(onError);
      const { url } = await serve(app);
      const { id } = (await (await fetch(`${url}/orders/7`, { method: 'POST' })).json()) as { id: string };
      expect(await over(engine, id)).toMatchObject({ name: 'bill', state: 'succeeded', result: 'billed 7' });
      expect((await fetch(`${url}/orders/-7`, { method: 'POST' })).status).toBe(500);
      expect(database.prepare('SELECT id FROM orders').pluck().all()).toEqual([7]);
      expect(rowsOf(path)).toBe(1);
    });

    it('an enqueue outside waits for a transaction that has begun meanwhile, and does not share its fate', async () => {
      const path = newPath();
      const database = connect(path);
      const engine = open({ database });
      let settled = false;
      const enqueued = send(engine, { name: 'a', args: [] }).finally(() => {
        settled = true;
      });
      database.exec('BEGIN'); // In the same turn, and left open for some.
      await sleep(60);
      expect(settled).toBe(false);
      database.exec('ROLLBACK');
      const { id } = await enqueued;
      expect(await engine.get(id)).toMatchObject({ state: 'queued' });
    });

    it('a transaction that is left open for 5 seconds makes it ERR_ENGINE_UNAVAILABLE', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      const enqueued = send(engine, { name: 'a', args: [] });
      database.exec('BEGIN');
      await expect(enqueued).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('transaction has not ended'),
      });
      database.exec('COMMIT');
      await expect(send(engine, { name: 'a', args: [] })).resolves.toHaveProperty('id');
    }, 15_000);

    it('may read row by row meanwhile', async () => {
      const database = connect(newPath());
      database.exec('CREATE TABLE numbers (n); INSERT INTO numbers VALUES (1), (2)');
      const engine = open({ database });
      const rows = database.prepare('SELECT n FROM numbers').iterate();
      rows.next();
      const enqueued = send(engine, { name: 'a', args: [] });
      await sleep(30);
      rows.return?.();
      await expect(enqueued).resolves.toHaveProperty('id');
    });

    it('keeps its pragmas, its version and its handle, also when it returns integers as BigInt', async () => {
      const database = connect(newPath(), { timeout: 1234 });
      database.defaultSafeIntegers(true);
      database.pragma('user_version = 42');
      const pragmas = ['user_version', 'journal_mode', 'synchronous', 'busy_timeout', 'foreign_keys'];
      const before = pragmas.map((pragma) => database.pragma(pragma, { simple: true }));
      const engine = open({ database });
      await engine.work([task('a', () => currentTask()?.attempt)]);
      const { id } = await send(engine, { name: 'a', args: [], delay: 1 });
      expect(await over(engine, id)).toMatchObject({ attempts: 1, result: 1 });
      await engine.close();
      expect(database.open).toBe(true);
      expect(pragmas.map((pragma) => database.pragma(pragma, { simple: true }))).toEqual(before);
    });

    it('once it is closed, enqueue and get reject with ERR_ENGINE_UNAVAILABLE, and close() resolves', async () => {
      const database = connect(newPath());
      const engine = open({ database });
      await engine.work([task('a', () => {})]);
      database.close();
      await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      await expect(engine.get(randomUUID())).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      await engine.close();
    });

    it('get waits for a lock, and rejects with ERR_ENGINE_UNAVAILABLE after 5 seconds', async () => {
      const path = newPath();
      const engine = open({ database: connect(path, { timeout: 0 }) }); // Not in WAL mode, where readers never wait.
      const { id } = await send(engine, { name: 'a', args: [] });
      const other = connect(path);
      other.exec('BEGIN EXCLUSIVE');
      const got = engine.get(id);
      await sleep(50);
      other.exec('COMMIT');
      expect(await got).toMatchObject({ id });
      other.exec('BEGIN EXCLUSIVE');
      await expect(engine.get(id)).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('could not be read'),
      });
      other.exec('COMMIT');
    }, 15_000);

    it('a reader that holds up the commit of a database that is not in WAL mode is waited for', async () => {
      const path = newPath();
      const engine = open({ database: connect(path, { timeout: 0 }) });
      const reader = connect(path);
      reader.exec('BEGIN; SELECT * FROM background_tasks');
      reader.prepare('SELECT * FROM background_tasks').all();
      const enqueued = send(engine, { name: 'a', args: [] });
      await sleep(50);
      reader.exec('COMMIT');
      const { id } = await enqueued;
      expect(await engine.get(id)).toMatchObject({ id, state: 'queued' });
    });
  });

  describe('workers', () => {
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
        expect(others).toContainEqual({ id, name, state: 'queued', attempts: 0, enqueuedAt });
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
      expect(rowsOf(path)).toBe(2);
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
  });

  describe('leases', () => {
    const die =
      "UPDATE background_tasks SET state = 'running', attempts = attempts + 1, worker = 'dead', lease_until = 0";

    it('are renewed while a task runs, also while close() waits for it', async () => {
      const path = newPath();
      const engine = open({ path, lease: 150 });
      const other = open({ path, lease: 150, pollInterval: 20 });
      let runs = 0;
      const running = deferred();
      const slow = task('a', async () => {
        runs++;
        running.resolve();
        await sleep(900);
      });
      const worker = await engine.work([slow]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await running.promise;
      await other.work([slow]);
      await sleep(300);
      await worker.close();
      expect(runs).toBe(1);
      expect(await other.get(id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it('a worker that lost its lease does not end the task that another one has taken', async () => {
      const path = newPath();
      const [slowEngine, fastEngine] = [open({ path }), open({ path, lease: 60, pollInterval: 20 })];
      const ended = deferred();
      const running = deferred();
      const errors: unknown[] = [];
      const slow = task('a', async () => {
        running.resolve();
        await ended.promise;
        throw new Error('too late to matter');
      });
      await slowEngine.work([slow], { concurrency: 1, onError: (error) => void errors.push(error) });
      const { id } = await send(slowEngine, { name: 'a', args: [] });
      await running.promise;
      connect(path).exec("UPDATE background_tasks SET worker = 'dead', lease_until = 0");
      await fastEngine.work([task('a', () => 'by the second')]);
      await over(fastEngine, id);
      ended.resolve();
      await slowEngine.close();
      expect(await fastEngine.get(id)).toMatchObject({ state: 'succeeded', attempts: 2, result: 'by the second' });
      expect(errors).toEqual([]);
    });

    it('a worker whose event loop was blocked for longer does not take its own task again', async () => {
      const engine = open({ path: newPath(), lease: 60, pollInterval: 10 });
      let runs = 0;
      const blocks = task('a', async () => {
        runs++;
        block(200);
        await sleep(50);
      });
      await engine.work([blocks]);
      const { id } = await send(engine, { name: 'a', args: [] });
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
      expect(runs).toBe(1);
    });

    it.each([
      ['the event loop is blocked', 0],
      ['it is and the clock is set forward', 20_000],
    ])('a worker does not take what another one of the process runs when %s', async (_, step) => {
      const engine = open({ path: newPath(), lease: 60, pollInterval: 10 });
      const ended = deferred();
      await engine.work([task('waits', () => ended.promise)], { concurrency: 1 });
      await engine.work([task('blocks', () => block(100))], { concurrency: 1 });
      const { id } = await send(engine, { name: 'waits', args: [] });
      await reaches(engine, id, ({ state }) => state === 'running');
      const { now } = Date;
      jest.spyOn(Date, 'now').mockImplementation(() => now() + step);
      const ids = await Promise.all(Array.from({ length: 5 }, () => send(engine, { name: 'blocks', args: [] })));
      for (const blocking of ids) await over(engine, blocking.id);
      ended.resolve();
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it.each([
      ['forward', 20_000],
      ['back', -20_000],
    ])(
      'no worker takes a task that runs, of its own or of another process, when the clock is set %s',
      async (_, step) => {
        const path = newPath();
        const engine = open({ path, lease: 3000, pollInterval: 20 });
        const other = open({ path, lease: 600, pollInterval: 10 });
        const ended = deferred();
        const waits = task('a', () => ended.promise);
        await engine.work([waits], { concurrency: 1 });
        const { id } = await send(engine, { name: 'a', args: [] });
        await reaches(engine, id, ({ state }) => state === 'running');
        await other.work([waits]);
        await send(engine, { name: 'lost', args: [] }); // Its lease runs out meanwhile.
        connect(path).exec(`${die} WHERE name = 'lost'`);
        await sleep(50);
        const { now } = Date;
        jest.spyOn(Date, 'now').mockImplementation(() => now() + step);
        await sleep(700);
        ended.resolve();
        expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
      },
    );

    it('nor after a lock of the database for longer than the lease', async () => {
      const path = newPath();
      const engine = open({ path, lease: 600 });
      const ended = deferred();
      const waits = task('a', () => ended.promise);
      await engine.work([waits]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await reaches(engine, id, ({ state }) => state === 'running');
      // So many that one of them writes first.
      for (let count = 0; count < 8; count++) await open({ path, lease: 600 }).work([waits]);
      const locker = connect(path);
      locker.exec('BEGIN IMMEDIATE');
      await sleep(900);
      locker.exec('COMMIT');
      await sleep(500);
      ended.resolve();
      expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it('a lost worker does not use up the retries', async () => {
      const path = newPath();
      const engine = open({ path, lease: 30, pollInterval: 1_000_000 });
      const retries = { limit: 1, minDelay: 0, maxDelay: 0, factor: 1, jitter: false };
      const { id } = await send(engine, { name: 'a', args: [], retries });
      connect(path).exec(die);
      const fails = task('a', () => {
        throw new Error('again');
      });
      await engine.work([fails], { onError: () => {} });
      expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 3 });
    });
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

  describe('retention', () => {
    it('tasks that are over are removed after it, however many; others stay', async () => {
      const path = newPath();
      const engine = open({ path, retention: 100, pollInterval: 10 });
      const waiting = await send(engine, { name: 'waits', args: [] });
      const delayed = await send(engine, { name: 'a', args: [], delay: 1_000_000 });
      const many = Array.from({ length: 250 }, () => send(engine, { name: 'a', args: [] }));
      await Promise.all(many);
      await engine.work([task('a', () => {})], { concurrency: 300 });
      const database = connect(path, { readonly: true });
      const count = database.prepare('SELECT count(*) FROM background_tasks').pluck();
      while (count.get() !== 2) await sleep(10);
      expect(await engine.get(waiting.id)).toMatchObject({ state: 'queued' });
      expect(await engine.get(delayed.id)).toMatchObject({ state: 'queued' });
    });

    it('by default they can be asked for for 7 days', async () => {
      const path = newPath();
      const engine = open({ path, pollInterval: 10 });
      const age = connect(path).prepare('UPDATE background_tasks SET finished_at = finished_at - ? WHERE id = ?');
      await engine.work([task('a', () => {})]);
      const { id } = await send(engine, { name: 'a', args: [] });
      const old = await send(engine, { name: 'a', args: [] });
      await over(engine, id);
      await over(engine, old.id);
      age.run(6.9 * 24 * 3_600_000, id);
      age.run(7 * 24 * 3_600_000, old.id);
      while ((await engine.get(old.id)) !== undefined) await sleep(10);
      expect(await engine.get(id)).toMatchObject({ state: 'succeeded' });
    });

    it('a removal that fails is tried again', async () => {
      const path = newPath();
      const engine = open({ path, pollInterval: 10 });
      const other = connect(path);
      await engine.work([task('a', () => {})]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await over(engine, id);
      other.exec('BEGIN IMMEDIATE; UPDATE background_tasks SET finished_at = 1');
      await sleep(50);
      other.exec('COMMIT; BEGIN IMMEDIATE');
      await sleep(50);
      expect(await engine.get(id)).toMatchObject({ state: 'succeeded' });
      other.exec('COMMIT');
      while ((await engine.get(id)) !== undefined) await sleep(10);
    });

    it('Infinity keeps them', async () => {
      const path = newPath();
      const engine = open({ path, pollInterval: 10, retention: Number.POSITIVE_INFINITY });
      await engine.work([task('a', () => {})]);
      const { id } = await send(engine, { name: 'a', args: [] });
      await over(engine, id);
      connect(path).exec('UPDATE background_tasks SET finished_at = 1');
      await sleep(50);
      expect(await engine.get(id)).toMatchObject({ state: 'succeeded' });
    });
  });

  it('taskStatus() follows a task to its end', async () => {
    const engine = open({ path: newPath() });
    const app = express();
    const resize = task('resize', async (width: number) => ({ width }));
    app.use(backgroundTasks({ engine }));
    app.post('/images', async (_req, res) => {
      const { id } = await res.locals.backgroundTasks.enqueue(resize, 200);
      res.status(202).location(`/tasks/${id}`).end();
    });
    app.get('/tasks/:id', taskStatus(engine, { result: true }));
    const { url } = await serve(app);
    const accepted = await fetch(`${url}/images`, { method: 'POST' });
    expect(accepted.status).toBe(202);
    const location = `${url}${accepted.headers.get('location')}`;
    const queued = await fetch(location);
    expect(queued.headers.get('retry-after')).toBe('1');
    expect(await queued.json()).toMatchObject({ name: 'resize', state: 'queued', attempts: 0 });
    await engine.work([resize]);
    let answer: { state?: string } = {};
    while (answer.state !== 'succeeded') answer = (await (await fetch(location)).json()) as { state?: string };
    expect(answer).toMatchObject({ result: { width: 200 }, attempts: 1 });
  });
});

function block(ms: number): void {
  const end = performance.now() + ms;
  while (performance.now() < end);
}

/** The database, and how many transactions were committed by way of it. */
function counting(database: Database.Database): { database: SqliteDatabase; commits: { count: number } } {
  const commits = { count: 0 };
  const counted: SqliteDatabase = {
    get open() {
      return database.open;
    },
    get readonly() {
      return database.readonly;
    },
    get inTransaction() {
      return database.inTransaction;
    },
    exec: (sql) => database.exec(sql),
    prepare: (sql) => {
      const statement = database.prepare(sql);
      if (sql !== 'COMMIT') return statement;
      return Object.assign(Object.create(statement), {
        run: () => {
          commits.count++;
          return statement.run();
        },
      });
    },
  };
  return { database: counted, commits };
}
