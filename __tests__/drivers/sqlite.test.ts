// The SQLite engine: what only this engine promises. Each part of it has a file of its own beside this one.

import { randomUUID } from 'node:crypto';
import { existsSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import express from 'express';
import { type SqliteOptions, sqlite } from '../../lib/drivers/sqlite/index.js';
import { backgroundTasks, task, taskStatus } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { serve } from '../fixtures/serve.js';
import { send } from './fixtures/send.js';
import { over, rowsIn, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

if (Number.parseInt(process.versions.node, 10) < 22) {
  it('better-sqlite3 13 on an older Node.js is refused with ERR_ENGINE_UNAVAILABLE, before it ends the process', () => {
    const path = join(tmpdir(), `${randomUUID()}.db`);
    expect(() => sqlite({ path })).toThrow(
      expect.objectContaining({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: 'sqlite: better-sqlite3 13 needs Node.js 22 or later; on Node.js 20 install better-sqlite3@12',
      }),
    );
    expect(existsSync(path)).toBe(false);
  });
}

describeWith({ node: 22 }, 'sqlite', () => {
  const { connect, directory, newPath, open } = sqliteFolder();

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
      const execute = jest.spyOn(Database.prototype, 'exec');
      const last = (): unknown => execute.mock.lastCall?.[0];
      const engine = open({ path: newPath() });
      await engine.work([task('a', () => {})]);
      for (let round = 0; round < 3; round++) {
        const { id } = await send(engine, { name: 'a', args: [] });
        expect(last()).toBe('PRAGMA synchronous = FULL');
        await over(engine, id);
        expect(last()).toBe('PRAGMA synchronous = NORMAL');
      }
      execute.mockRestore();
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
      expect(rowsIn(connect(path, { readonly: true }))).toBe(1);
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
      const execute = jest.spyOn(Database.prototype, 'exec');
      const engine = open({ path: ':memory:' });
      await engine.work([task('a', () => 'ran')]);
      const { id } = await send(engine, { name: 'a', args: [] });
      expect(await over(engine, id)).toMatchObject({ result: 'ran' });
      // Where there is no WAL, less than FULL could spoil the file.
      expect(execute.mock.calls.flat()).not.toContain('PRAGMA synchronous = NORMAL');
      execute.mockRestore();
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
    expect(rowsIn(connect(path, { readonly: true }))).toBe(1);
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
