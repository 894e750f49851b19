// The file of the SQLite engine as earlier releases have left it, and as this one makes it.

import { readFileSync, writeFileSync } from 'node:fs';
import { setTimeout as sleep } from 'node:timers/promises';
import type Database from 'better-sqlite3';
import type { SqliteOptions } from '../../lib/drivers/sqlite/index.js';
import { ScheduleTable } from '../../lib/drivers/sqlite/schedule-table.js';
import { currentTask, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { makeFileOf010, tasksOf010 } from './fixtures/sqlite-0.1.0.js';
import { sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

describeWith({ node: 22 }, 'the table of the SQLite engine', () => {
  const folder = sqliteFolder();
  let path = '';

  beforeEach(() => {
    path = folder.newPath();
  });

  function open(options: SqliteOptions = { path }): TaskEngine {
    return folder.open(options);
  }

  function connect(): Database.Database {
    return folder.connect(path);
  }

  function fileOf010(): Database.Database {
    const database = connect();
    makeFileOf010(database);
    return database;
  }

  it('keeps a task behind the one that runs when the end of an older one with its key is corrected', async () => {
    open();
    const database = connect();
    const insert =
      database.prepare(`INSERT INTO background_tasks (id, name, args, priority, state, run_at, enqueued_at, finished_at, key)
      VALUES (?, 'send', '[]', 0, ?, 1, 1, ?, 'one')`);
    insert.run('older', 'succeeded', 2);
    insert.run('leader', 'running', null);
    insert.run('follower', 'behind', null);
    const state = database.prepare("SELECT state FROM background_tasks WHERE id = 'follower'").pluck();

    database.exec("UPDATE background_tasks SET finished_at = 3 WHERE id = 'older'");
    expect(state.get()).toBe('behind');
    database.exec("UPDATE background_tasks SET state = 'succeeded', finished_at = 4 WHERE id = 'leader'");
    expect(state.get()).toBe('queued');
  });

  it('moves a schedule on only as long as it is the one that was read', () => {
    open();
    const schedules = new ScheduleTable(connect());
    const schedule = { name: 's', definition: 'the first', next: 1 };
    schedules.put(schedule);
    expect(schedules.advance(schedule, 2)).toBe(true);
    expect(schedules.advance(schedule, 2)).toBe(false);
    schedules.put({ ...schedule, definition: 'the second' });
    expect(schedules.advance(schedule, 2)).toBe(false);
    expect(schedules.list()).toEqual([{ name: 's', definition: 'the second', next: 1 }]);
    schedules.delete('s');
    expect(schedules.advance(schedule, 2)).toBe(false);
  });

  describe('of 0.1.0', () => {
    it('keeps its tasks', async () => {
      fileOf010();
      const engine = open();
      for (const { id, record } of tasksOf010) expect(await engine.get(id)).toEqual(record);
    });

    it('has its waiting tasks run, in their order and with what was stored with them', async () => {
      fileOf010();
      const engine = open({ path, lease: 30, pollInterval: 10 });
      const ran: unknown[] = [];
      const notes = task('notes', (...args: unknown[]) => {
        ran.push([currentTask()?.id, currentTask()?.attempt, ...args]);
        if (args[0] === 'with retries') throw new Error('once more');
      });
      await engine.work([notes], { concurrency: 1, onError: () => {} });
      const waiting = tasksOf010.filter(({ ran }) => ran !== undefined);
      while (ran.length < 5) await sleep(10);
      for (const task of waiting) for (const run of task.ran ?? []) expect(ran).toContainEqual([task.id, ...run]);
      const order = ran.map((run) => (run as unknown[])[2]);
      expect(order.slice(0, 3)).toEqual(['with priority', 'first', 'with retries']);
    });

    it('keeps the keys of its waiting tasks, and no others', async () => {
      fileOf010();
      const engine = open();
      const [live] = tasksOf010.filter(({ key }) => key === 'live');
      expect(await send(engine, { name: 'notes', args: [], key: 'live' })).toEqual({ id: live?.id });
      const { id } = await send(engine, { name: 'notes', args: [], key: 'over' });
      expect(tasksOf010.map((task) => task.id)).not.toContain(id);
    });

    it('may have indexes, triggers, views and foreign keys of the application: they stay', async () => {
      const database = fileOf010();
      const id = tasksOf010[0]?.id ?? '';
      database.exec(`
        CREATE TABLE orders (task TEXT REFERENCES background_tasks (id) ON DELETE CASCADE);
        INSERT INTO orders VALUES ('${id}');
        CREATE VIEW names AS SELECT DISTINCT name FROM background_tasks;
        CREATE INDEX by_name ON background_tasks (name);
        CREATE TABLE seen (id TEXT);
        CREATE TRIGGER see AFTER INSERT ON background_tasks BEGIN INSERT INTO seen VALUES (NEW.id); END`);
      expect(database.pragma('foreign_keys', { simple: true })).toBe(1);
      const engine = open({ database });
      expect(database.pragma('foreign_keys', { simple: true })).toBe(1);
      expect(database.prepare('SELECT task FROM orders').pluck().all()).toEqual([id]);
      expect(database.prepare('SELECT id FROM seen').all()).toEqual([]);
      const sent = await send(engine, { name: 'new', args: [] });
      expect(database.prepare('SELECT id FROM seen').all()).toEqual([sent]);
      expect(database.prepare('SELECT name FROM names').pluck().all()).toContain('new');
      database.prepare('DELETE FROM background_tasks WHERE id = ?').run(id);
      expect(database.prepare('SELECT task FROM orders').all()).toEqual([]);
      const indexes = database.prepare("SELECT name FROM sqlite_master WHERE type = 'index'").pluck().all();
      expect(indexes).toContain('by_name');
    });

    it('is left as it is where it cannot be brought up to this version', () => {
      const database = fileOf010();
      database.exec("CREATE TABLE background_tasks_2 (a); INSERT INTO background_tasks_2 VALUES ('mine')");
      const before = database.prepare('SELECT * FROM background_tasks').all();
      expect(() => open()).toThrow(expect.objectContaining({ code: 'ERR_ENGINE_UNAVAILABLE' }));
      expect(database.prepare('SELECT * FROM background_tasks').all()).toEqual(before);
      expect(database.prepare('SELECT version FROM background_tasks_schema').pluck().all()).toEqual([1]);
    });

    it('can be worked by processes that have opened it before and go on', async () => {
      const database = fileOf010();
      const take = database.prepare(`UPDATE background_tasks SET state = 'running', attempts = attempts + 1, worker = ?,
        lease_until = ?, started_at = ? WHERE seq = ? RETURNING seq, id, name, args, timeout, retries, attempts, failures`);
      const engine = open();
      const { id } = await send(engine, { name: 'notes', args: [] });
      const { seq } = database.prepare('SELECT seq FROM background_tasks WHERE id = ?').get(id) as { seq: number };
      expect(take.all('a worker of 0.1.0', Date.now() + 10_000, Date.now(), seq)).toMatchObject([{ id, attempts: 1 }]);
      expect(await engine.get(id)).toMatchObject({ state: 'running', attempts: 1 });
    });
  });

  it('is read past neither result nor arguments by a get() that does not ask for the result', async () => {
    const large = 'r'.repeat(1_000_000);
    const engine = open();
    await engine.work([task('a', (_argument: string) => large)]);
    const { id } = await send(engine, { name: 'a', args: ['a'.repeat(1_000_000)] });
    while ((await engine.get(id, { result: false }))?.state !== 'succeeded') await sleep(5);
    expect(await engine.get(id)).toMatchObject({ result: large });
    await engine.close();
    spoilPagesOf('r');
    spoilPagesOf('a');
    const again = open();
    await expect(again.get(id)).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    expect(await again.get(id, { result: false })).toEqual({
      id,
      name: 'a',
      state: 'succeeded',
      attempts: 1,
      enqueuedAt: expect.any(Date),
      startedAt: expect.any(Date),
      finishedAt: expect.any(Date),
    });
  });

  /** Whoever reads one of these pages is told that the file is malformed. */
  function spoilPagesOf(letter: string): void {
    const bytes = readFileSync(path);
    const pageSize = bytes.readUInt16BE(16);
    const filled = letter.repeat(pageSize - 4);
    for (let start = 0; start < bytes.length; start += pageSize) {
      // A page of a value that is too large for its row: the number of the next page, then text.
      if (bytes.toString('latin1', start + 4, start + pageSize) === filled) bytes.writeUInt32BE(0, start);
    }
    writeFileSync(path, bytes);
  }

  it('does not give a number out twice: a worker that was paused does not end the task of somebody else', async () => {
    const engine = open();
    const first = deferred<string>();
    const second = deferred<string>();
    const waits = task('a', (which: string) => (which === 'first' ? first.promise : second.promise));
    await engine.work([waits]);
    const { id } = await send(engine, { name: 'a', args: ['first'] });
    const database = connect();
    const steal = database.prepare(
      "UPDATE background_tasks SET worker = 'dead', lease_until = 0 WHERE state = 'running'",
    );
    while (steal.run().changes === 0) await sleep(5);
    const other = open({ path, lease: 60, pollInterval: 10, retention: 0 });
    const worker = await other.work([task('a', () => {})]);
    while ((await other.get(id)) !== undefined) await sleep(5);
    await worker.close();

    const next = await send(engine, { name: 'a', args: ['second'] });
    while ((await engine.get(next.id))?.state !== 'running') await sleep(5);
    first.resolve('of the first');
    await sleep(100);
    expect(await engine.get(next.id)).toMatchObject({ state: 'running' });
    second.resolve('of the second');
    while ((await engine.get(next.id))?.state === 'running') await sleep(5);
    expect(await engine.get(next.id)).toMatchObject({ state: 'succeeded', result: 'of the second' });
  });
});
