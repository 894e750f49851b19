// What the SQLite engine does besides running tasks: it removes those that are over, and reports those that nobody knows.

import { setTimeout as sleep } from 'node:timers/promises';
import type Database from 'better-sqlite3';
import type { SqliteOptions } from '../../lib/drivers/sqlite/index.js';
import { type OnError, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

describeWith({ node: 22 }, 'upkeep of the SQLite engine', () => {
  const folder = sqliteFolder();
  let path = '';

  beforeEach(() => {
    path = folder.newPath();
  });

  function open(options: Partial<SqliteOptions> = {}): TaskEngine {
    return folder.open({ path, lease: 600, pollInterval: 10, ...options } as SqliteOptions);
  }

  function connect(): Database.Database {
    return folder.connect(path);
  }

  /** Enqueued some time ago, whose names `nameOf` makes of numbers. */
  function putOld(count: number, nameOf: (index: number) => string): void {
    const database = connect();
    const insert = database.prepare(`INSERT INTO background_tasks (id, name, args, priority, state, run_at, enqueued_at)
      VALUES (?, ?, '[]', ?, 'queued', 1, 1)`);
    database.transaction(() => {
      for (let index = 0; index < count; index++) insert.run(`id ${index}`, nameOf(index), index % 3);
    })();
  }

  /** How often each task was reported, by id. */
  function counting(): { onError: OnError; times: Map<string, number> } {
    const times = new Map<string, number>();
    const onError: OnError = (_error, { task: { id } }) => void times.set(id, (times.get(id) ?? 0) + 1);
    return { onError, times };
  }

  it('is not held up by tasks that come more often than it looks', async () => {
    const engine = open({ retention: 300, pollInterval: 250 });
    const { onError, times } = counting();
    await engine.work([task('a', () => {})], { onError });
    const over = await send(engine, { name: 'a', args: [] });
    const unknown = await send(engine, { name: 'unknown', args: [] });
    let isRemoved = false;
    while (!isRemoved || times.size === 0) {
      await Promise.all([send(engine, { name: 'a', args: [] }), sleep(50)]);
      isRemoved = (await engine.get(over.id)) === undefined;
    }
    expect([...times]).toEqual([[unknown.id, 1]]);
  });

  it('reports each unknown task once, also 100,000 of them', async () => {
    const engine = open();
    putOld(100_000, (index) => `unknown ${index % 12}`);
    const { onError, times } = counting();
    await engine.work([task('a', () => {})], { onError });
    while (times.size < 100_000) await sleep(50);
    expect([...times.values()].filter((count) => count !== 1)).toEqual([]);
  }, 120_000);

  it('reports each of many unknown names, and of several workers one does', async () => {
    const engine = open();
    putOld(2000, (index) => `unknown ${index}`);
    const { onError, times } = counting();
    for (const name of ['a', 'b']) await engine.work([task(name, () => {})], { onError });
    while (times.size < 2000) await sleep(20);
    const { id } = await send(engine, { name: 'unknown 7', args: [] });
    while (!times.has(id)) await sleep(20);
    expect([...times.values()].filter((count) => count !== 1)).toEqual([]);
  });

  it('of several processes one reports each task', async () => {
    const { onError, times } = counting();
    for (const name of ['a', 'b', 'c']) await open().work([task(name, () => {})], { onError });
    await sleep(10); // They have begun.
    putOld(3000, (index) => `unknown ${index % 12}`);
    while (times.size < 3000) await sleep(20);
    await sleep(1500); // All of them have walked once more.
    expect([...times.values()].filter((count) => count !== 1)).toEqual([]);
  });

  it('takes a report for one of before also if it is a little later than its own look', async () => {
    const engine = open();
    const { onError, times } = counting();
    putOld(1000, (index) => `unknown ${index}`);
    await engine.work([task('a', () => {})], { onError });
    connect()
      .prepare('UPDATE background_tasks SET told_at = ? WHERE seq % 2 = 0')
      .run(Date.now() + 1500);
    while (times.size < 500) await sleep(20);
    await sleep(100);
    expect(times.size).toBe(500);
  });

  it('reports nothing that another process knows, however busy it is with other tasks; once that is gone it does', async () => {
    const engine = open();
    const { onError, times } = counting();
    await engine.work([task('a', () => {})], { onError });
    const ended = deferred();
    const other = open();
    const busy = [task('b', () => ended.promise), task('c', () => {})];
    const worker = await other.work(busy, { concurrency: 1, onError });
    const running = await send(engine, { name: 'b', args: [] });
    while ((await engine.get(running.id))?.state !== 'running') await sleep(5);
    const waiting = await send(engine, { name: 'c', args: [] });
    const unknown = await send(engine, { name: 'd', args: [] });
    while (!times.has(unknown.id)) await sleep(20);
    await sleep(2500); // Some walks.
    expect([...times.keys()]).toEqual([unknown.id]);
    await worker.close({ timeout: 0 });
    while (times.size < 3) await sleep(20);
    expect([...times].sort()).toEqual([unknown, running, waiting].map(({ id }) => [id, 1]).sort());
  });

  it('a process that starts anew tells again of what is still unknown', async () => {
    const { onError, times } = counting();
    const engine = open();
    const { id } = await send(engine, { name: 'unknown', args: [] });
    await engine.work([task('a', () => {})], { onError });
    while (!times.has(id)) await sleep(20);
    await engine.close();
    await open().work([task('a', () => {})], { onError });
    while (times.get(id) === 1) await sleep(20);
    expect([...times]).toEqual([[id, 2]]);
  });

  it('goes on when one worker of several is closed', async () => {
    const engine = open();
    const [first, second] = [counting(), counting()];
    const worker = await engine.work([task('a', () => {})], { onError: first.onError });
    await engine.work([task('b', () => {})], { onError: second.onError });
    const one = await send(engine, { name: 'unknown', args: [] });
    while (first.times.size === 0) await sleep(10);
    await worker.close();
    const two = await send(engine, { name: 'unknown', args: [] });
    const three = await send(engine, { name: 'a', args: [] });
    while (second.times.size < 2) await sleep(10);
    expect([...first.times.keys()]).toEqual([one.id]);
    expect([...second.times.keys()].sort()).toEqual([two.id, three.id].sort());
  });
});
