// The SQLite engine writes what is enqueued in one turn of the event loop together.

import { setTimeout as sleep, setImmediate as turn } from 'node:timers/promises';
import { task } from '../../lib/index.js';
import { send } from './fixtures/send.js';
import { block, counting, over, refuseBad, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

// Some tests set the clock or wait for timers.
jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));
jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

describeWith({ node: 22 }, 'group commit on SQLite', () => {
  const { connect, newPath, open } = sqliteFolder();

  it('all enqueues of one turn of the event loop share a commit, with the worker that takes them', async () => {
    const counted = counting(connect(newPath()));
    const engine = open({ database: counted.database });
    const enqueue = (): Promise<{ id: string }> => send(engine, { name: 'a', args: [] });
    counted.reset();
    jest.spyOn(performance, 'now').mockReturnValue(performance.now()); // However slow the machine: one time slice.
    await Promise.all(Array.from({ length: 32 }, enqueue));
    expect(counted.count('COMMIT')).toBe(1);
    await Promise.all([enqueue(), enqueue()]);
    expect(counted.count('COMMIT')).toBe(2);
    await enqueue();
    await enqueue();
    expect(counted.count('COMMIT')).toBe(4);
    let ran = 0;
    await engine.work([task('b', () => ran++)], { concurrency: 50 });
    await Promise.all([turn(), sleep(20)]);
    counted.reset();
    const ids = await Promise.all(Array.from({ length: 32 }, () => send(engine, { name: 'b', args: [] })));
    for (const { id } of ids) await over(engine, id);
    expect(ran).toBe(32);
    expect(counted.count('COMMIT')).toBe(2);
  });

  it('very many are written by time slice, and the event loop gets its turn in between', async () => {
    const counted = counting(connect(newPath()));
    const engine = open({ database: counted.database });
    let time = performance.now();
    jest.spyOn(performance, 'now').mockImplementation(() => ++time);
    let turns = 0;
    const count = (): void => {
      turns++;
      counter = setImmediate(count);
    };
    let counter = setImmediate(count);
    counted.reset();
    const ids = await Promise.all(Array.from({ length: 100 }, () => send(engine, { name: 'a', args: [] })));
    clearImmediate(counter);
    expect(new Set(ids.map(({ id }) => id)).size).toBe(100);
    expect(counted.count('COMMIT')).toBeGreaterThan(10);
    expect(turns).toBeGreaterThanOrEqual(counted.count('COMMIT') - 1);
  });

  it.each([
    ['the first', [0]],
    ['the last', [1999]],
    ['some', [3, 700, 701, 1500]],
  ])('of very many %s cannot be written, which is found in a few transactions', async (_, bad) => {
    const counted = counting(connect(newPath()));
    const engine = open({ database: counted.database });
    counted.database.exec(refuseBad);
    counted.reset();
    const results = await Promise.allSettled(
      Array.from({ length: 2000 }, (_, index) => send(engine, { name: bad.includes(index) ? 'bad' : 'a', args: [] })),
    );
    expect(results.flatMap(({ status }, index) => (status === 'rejected' ? [index] : []))).toEqual(bad);
    expect(counted.count('COMMIT')).toBeLessThan(500);
  });

  it('what is not written within 5 seconds behind very many others is rejected, and not stored later', async () => {
    const database = connect(newPath());
    database.function('pause', () => block(50));
    const engine = open({ database });
    database.exec('CREATE TRIGGER slow BEFORE INSERT ON background_tasks BEGIN SELECT pause(); END');
    const results = await Promise.allSettled(Array.from({ length: 150 }, () => send(engine, { name: 'a', args: [] })));
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
