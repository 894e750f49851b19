// A worker of the SQLite engine that knows many names takes tasks as one that knows few: by priority and age.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { type SqliteDatabase, type SqliteOptions, sqlite } from '../../lib/drivers/sqlite/index.js';
import { type Task, type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22 }, 'many names on the SQLite engine', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-names-'));
  const engines: TaskEngine[] = [];
  let files = 0;
  let path = '';

  beforeEach(() => {
    path = join(directory, `${++files}.db`);
  });

  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
  });

  afterAll(() => rmSync(directory, { recursive: true }));

  function open(options: SqliteOptions = { path, pollInterval: 20 }): TaskEngine {
    const engine = sqlite(options);
    engines.push(engine);
    return engine;
  }

  /** Tasks that have waited for long, of names that nobody knows. */
  function putUnknown(count: number, priority: number): void {
    const database = new Database(path);
    const insert = database.prepare(`INSERT INTO background_tasks (id, name, args, priority, state, run_at, enqueued_at)
      VALUES (?, ?, '[]', ?, 'queued', 1, 1)`);
    database.transaction(() => {
      for (let index = 0; index < count; index++) insert.run(`${priority} ${index}`, `unknown ${index % 7}`, priority);
    })();
    database.close();
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
    const counted = new Database(path);
    counted.pragma('journal_mode = WAL');
    const { database, statements } = counting(counted);
    const engine = open({ database });
    putUnknown(unknown, 0);
    const sent = await enqueue(engine, 3000);
    let left = sent.length;
    const isOver = deferred();
    const tasks = thousand(() => {
      left--;
      if (left === 0) isOver.resolve();
    });
    statements.count = 0;
    await engine.work(tasks, { onError: () => {} });
    await isOver.promise;
    // It takes 4 of them. To ask for each name would be 100 more.
    expect(statements.count / sent.length).toBeLessThan(20);
  });
});

/** The database, and how many statements were run on it. */
function counting(database: Database.Database): { database: SqliteDatabase; statements: { count: number } } {
  const statements = { count: 0 };
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
      const count = <Result>(call: (...values: unknown[]) => Result): ((...values: unknown[]) => Result) => {
        return (...values) => {
          statements.count++;
          return call.apply(statement, values);
        };
      };
      return {
        run: count(statement.run),
        get: count(statement.get),
        all: count(statement.all),
        safeIntegers: (toggle) => statement.safeIntegers(toggle),
      };
    },
  };
  return { database: counted, statements };
}
