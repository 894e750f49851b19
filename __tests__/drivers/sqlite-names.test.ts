// A worker of the SQLite engine that knows many names takes tasks as one that knows few: by priority and age.

import type { SqliteOptions } from '../../lib/drivers/sqlite/index.js';
import { type Task, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { counting, sqliteFolder } from './fixtures/sqlite-folder.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

describeWith({ node: 22 }, 'many names on the SQLite engine', () => {
  const { newPath, open: openAny, connect } = sqliteFolder();
  let path = '';

  beforeEach(() => {
    path = newPath();
  });

  function open(options: SqliteOptions = { path, pollInterval: 20 }): TaskEngine {
    return openAny(options);
  }

  /** Tasks that have waited for long, of names that nobody knows. */
  function putUnknown(count: number, priority: number): void {
    const database = connect(path);
    const insert = database.prepare(`INSERT INTO background_tasks (id, name, args, priority, state, run_at, enqueued_at)
      VALUES (?, ?, '[]', ?, 'queued', 1, 1)`);
    database.transaction(() => {
      for (let index = 0; index < count; index++) insert.run(`${priority} ${index}`, `unknown ${index % 7}`, priority);
    })();
  }

  /** A thousand tasks that say that they run. */
  function thousand(run: (index: number) => void): Task<[number]>[] {
    return Array.from({ length: 1000 }, (_, number) => task(`name ${number}`, run));
  }

  /** As they are to be taken, given when and how they were enqueued. */
  function inOrder(sent: readonly { index: number; priority: number }[]): number[] {
    return [...sent].sort((a, b) => b.priority - a.priority || a.index - b.index).map(({ index }) => index);
  }

  async function enqueue(engine: TaskEngine, count: number): Promise<{ index: number; priority: number }[]> {
    const sent = Array.from({ length: count }, (_, index) => ({ index, priority: (index * 7) % 3 }));
    await Promise.all(
      sent.map(({ index, priority }) => send(engine, { name: `name ${(index * 37) % 1000}`, args: [index], priority })),
    );
    return sent;
  }

  it.each([
    ['', 0],
    [', behind many tasks that it does not know', 500],
  ])('they are taken by priority and age%s', async (_, unknown) => {
    const engine = open();
    putUnknown(unknown, 1);
    putUnknown(unknown, 0);
    const sent = await enqueue(engine, 600);
    const ran: number[] = [];
    const isOver = deferred();
    await engine.work(
      thousand((index) => {
        ran.push(index);
        if (ran.length === sent.length) isOver.resolve();
      }),
      { concurrency: 1, onError: () => {} },
    );
    await isOver.promise;
    expect(ran).toEqual(inOrder(sent));
  });

  it('one that is enqueued behind tasks that nobody knows is taken at once', async () => {
    const engine = open({ path, pollInterval: 1_000_000 });
    putUnknown(500, 0);
    let ran = deferred<number>();
    await engine.work(
      thousand((index) => ran.resolve(index)),
      { onError: () => {} },
    );
    for (let index = 0; index < 20; index++) {
      ran = deferred();
      await send(engine, { name: `name ${index}`, args: [index] });
      expect(await ran.promise).toBe(index);
    }
  });

  it('several workers take all of them, each once', async () => {
    const [engine, other] = [open(), open()];
    putUnknown(500, 0);
    const sent = await enqueue(engine, 3000);
    const ran: number[] = [];
    const isOver = deferred();
    const tasks = thousand((index) => {
      ran.push(index);
      if (ran.length === sent.length) isOver.resolve();
    });
    for (const each of [engine, other, engine]) await each.work(tasks, { onError: () => {} });
    await isOver.promise;
    expect(ran.sort((a, b) => a - b)).toEqual(sent.map(({ index }) => index));
  });

  it.each([
    ['', 0],
    [', nor behind many tasks that it does not know', 500],
  ])('a task takes no more statements than with few names%s', async (_, unknown) => {
    const counted = connect(path);
    counted.pragma('journal_mode = WAL');
    const statements = counting(counted);
    const engine = open({ database: statements.database });
    putUnknown(unknown, 0);
    const sent = await enqueue(engine, 3000);
    let left = sent.length;
    const isOver = deferred();
    const tasks = thousand(() => {
      left--;
      if (left === 0) isOver.resolve();
    });
    statements.reset();
    await engine.work(tasks, { onError: () => {} });
    await isOver.promise;
    // It takes 4 of them. To ask for each name would be 100 more.
    expect(statements.count() / sent.length).toBeLessThan(20);
  });
});
