// The SQLite engine on a database of the application.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { sqlite } from '../../lib/drivers/sqlite/index.js';
import { backgroundTasks, currentTask, task } from '../../lib/index.js';
import { serve } from '../fixtures/serve.js';
import { send } from './fixtures/send.js';
import { over, refuseBad, rowsIn, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

describeWith({ node: 22 }, "the application's own SQLite database", () => {
  const { connect, newPath, open } = sqliteFolder();

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
    expect(rowsIn(connect(path, { readonly: true }))).toBe(1);
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
