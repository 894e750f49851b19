// The SQLite engine on a machine whose clock is set back: what was stored before is not waited for until the clock has caught up.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { type SqliteOptions, sqlite } from '../../lib/drivers/sqlite/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const anHour = 3_600_000;

describeWith({ node: 22 }, 'on a clock that is set back, the SQLite engine', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-clock-'));
  const engines: TaskEngine[] = [];
  const databases: Database.Database[] = [];
  let files = 0;
  let path = '';

  beforeEach(() => {
    path = join(directory, `${++files}.db`);
  });

  afterEach(async () => {
    jest.restoreAllMocks();
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
    for (const database of databases.splice(0)) database.close();
  });

  afterAll(() => rmSync(directory, { recursive: true }));

  function open(options: Partial<SqliteOptions> = {}): TaskEngine {
    const engine = sqlite({ path, pollInterval: 10, ...options } as SqliteOptions);
    engines.push(engine);
    return engine;
  }

  function connect(): Database.Database {
    const database = new Database(path);
    databases.push(database);
    return database;
  }

  function setClock(step: number): void {
    const { now } = Date;
    jest.spyOn(Date, 'now').mockImplementation(() => now() + step);
  }

  describe('runs a task whose worker has died', () => {
    /** As a worker leaves it that dies while it runs the task. */
    async function leaveRunning(lease: number): Promise<string> {
      const engine = open({ lease });
      const hangs = task('a', () => new Promise<void>(() => {}));
      const worker = await engine.work([hangs]);
      const { id } = await send(engine, { name: 'a', args: [] });
      while ((await engine.get(id))?.state !== 'running') await sleep(5);
      connect().exec("UPDATE background_tasks SET worker = 'dead'");
      await worker.close({ timeout: 0 });
      return id;
    }

    it.each([
      ['with leases of the same length', 300],
      ['with longer leases', 900],
      ['with shorter leases', 100],
    ])('%s', async (_, lease) => {
      const id = await leaveRunning(lease);
      setClock(-anHour);
      const engine = open({ lease: 300 });
      await engine.work([task('a', () => 'again')]);
      while ((await engine.get(id))?.state !== 'succeeded') await sleep(10);
      expect(await engine.get(id)).toMatchObject({ attempts: 2, result: 'again' });
    });
  });

  it.each([
    ['a longer', 3000, 600],
    ['a shorter', 600, 3000],
  ])('does not take a task from a worker with %s lease that lives', async (_, lease, otherLease) => {
    const engine = open({ lease });
    const ended = deferred();
    const waits = task('a', () => ended.promise);
    await engine.work([waits], { concurrency: 1 });
    const { id } = await send(engine, { name: 'a', args: [] });
    while ((await engine.get(id))?.state !== 'running') await sleep(5);
    await open({ lease: otherLease }).work([waits]);
    setClock(-anHour);
    await sleep(1500);
    ended.resolve();
    while ((await engine.get(id))?.state !== 'succeeded') await sleep(10);
    expect(await engine.get(id)).toMatchObject({ attempts: 1 });
  });

  describe('lets a delay begin anew, not wait for the clock to catch up', () => {
    it.each([
      ['a delayed task', { delay: 300 }],
      ['a task that is tried again', { retries: { limit: 1, minDelay: 300, maxDelay: 300, factor: 1, jitter: false } }],
    ])('%s', async (_, options) => {
      const engine = open();
      let runs = 0;
      const failsFirst = task('a', () => {
        if ('retries' in options && ++runs === 1) throw new Error('not yet');
      });
      await engine.work([failsFirst]);
      const { id } = await send(engine, { name: 'a', args: [], ...options });
      if ('retries' in options) while (runs === 0) await sleep(1);
      await sleep(50);
      setClock(-anHour);
      while ((await engine.get(id))?.state !== 'succeeded') await sleep(10);
    });

    it('a delay that is longer keeps its length', async () => {
      const engine = open();
      await engine.work([task('a', () => {})]);
      const { id } = await send(engine, { name: 'a', args: [], delay: 2 * anHour });
      setClock(-anHour);
      const select = connect().prepare<[string], { run_at: number }>(
        'SELECT run_at FROM background_tasks WHERE id = ?',
      );
      const dueIn = (): number => (select.get(id)?.run_at ?? 0) - Date.now();
      while (dueIn() > 2 * anHour) await sleep(10);
      expect(dueIn()).toBeGreaterThan(1.9 * anHour);
    });
  });

  it('removes what is over once the retention has passed', async () => {
    const engine = open({ retention: 300 });
    await engine.work([task('a', () => {})]);
    const { id } = await send(engine, { name: 'a', args: [] });
    while ((await engine.get(id))?.state !== 'succeeded') await sleep(1);
    setClock(-anHour);
    while ((await engine.get(id)) !== undefined) await sleep(10);
  });

  it('reports a task that no worker knows, also where a worker that is gone has known it', async () => {
    const gone = open({ lease: 300 });
    await gone.work([task('of before', () => {})]);
    const { id } = await send(gone, { name: 'of before', args: [] });
    while ((await gone.get(id))?.state !== 'succeeded') await sleep(1);
    await gone.close();
    const engine = open({ lease: 300 });
    for (const name of ['unknown', 'of before']) await send(engine, { name, args: [] });
    setClock(-anHour);
    const names = new Set<string>();
    await engine.work([], { onError: (_error, context) => void names.add(context.task.name) });
    while (names.size < 2) await sleep(10);
  });
});
