// How long the SQLite engine keeps the records of tasks.

import { setTimeout as sleep } from 'node:timers/promises';
import { task } from '../../lib/index.js';
import { send } from './fixtures/send.js';
import { over, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

describeWith({ node: 22 }, 'retention on SQLite', () => {
  const { connect, newPath, open } = sqliteFolder();

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
