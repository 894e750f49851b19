// The SQLite engine on node:sqlite: the conformance suite, and what differs from better-sqlite3, which the other tests run on.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { type NodeDatabase, sqlite } from '../../lib/drivers/sqlite/index.js';
import { defaultLibrary, hasNodeSqlite, nodeSqlite, type OwnDatabase } from '../../lib/drivers/sqlite/library.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { describeConformance, type FragileStore } from './conformance.js';
import type { SqliteConfig } from './fixtures/sqlite.js';
import { describeWith } from './requirements.js';

const directory = mkdtempSync(join(tmpdir(), 'tasks-'));
let files = 0;

afterAll(() => rmSync(directory, { recursive: true }));

function newPath(): string {
  return join(directory, `${++files}.db`);
}

/** A connection that does not end its transaction makes the store fail. */
function createStore(): FragileStore {
  const path = newPath();
  let blocker: OwnDatabase | undefined;
  const config: SqliteConfig = { path, lease: 1500, pollInterval: 100, library: 'node:sqlite' };
  return {
    config,
    stop: () => {
      blocker = nodeSqlite(path, { timeout: 1000 });
      blocker.exec('BEGIN EXCLUSIVE');
    },
    start: () => {
      blocker?.close();
    },
    remove: () => {},
  };
}

it.each([
  ['20.20.2', false],
  ['22.23.3', false],
  ['24.14.9', false],
  ['24.15.0', true],
  ['25.1.0', false],
  ['26.0.0', true],
])('Node.js %s has it without a warning: %p', (version, has) => {
  expect(hasNodeSqlite(version)).toBe(has);
});

describeWith({ node: 24 }, 'sqlite on node:sqlite', () => {
  describeConformance('sqlite on node:sqlite', {
    module: require.resolve('./fixtures/sqlite.ts'),
    createStore,
    createFragileStore: createStore,
  });

  const engines: TaskEngine[] = [];
  const sum = task('sum', (a: number, b: number) => a + b);

  afterEach(async () => {
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
  });

  function openDatabase(path = newPath()): NodeDatabase {
    const { DatabaseSync }: { DatabaseSync: new (path: string) => NodeDatabase } = require('node:sqlite');
    return new DatabaseSync(path);
  }

  it('is the default, prints no warning, and needs nothing installed', () => {
    expect(defaultLibrary(newPath(), { timeout: 0 }).constructor.name).toBe('AdaptedDatabase');
    const program = `
      require('module')._load = ((load) => (name, ...rest) => {
        if (name === 'better-sqlite3') throw new Error('not installed');
        return load(name, ...rest);
      })(require('module')._load);
      const { sqlite } = require('./lib/drivers/sqlite/index.ts');
      const { task } = require('./lib/index.ts');
      const engine = sqlite({ path: ${JSON.stringify(newPath())} });
      const ran = task('ran', () => { console.log('ran'); void engine.close(); });
      engine.work([ran]).then(() => engine.enqueue(ran));
    `;
    const output = execFileSync(process.execPath, ['--import', 'tsx', '-e', `${program}`], {
      encoding: 'utf8',
      stdio: 'pipe',
    });
    expect(output).toBe('ran\n');
  });

  it("takes the application's database, and enqueues in its open transaction", async () => {
    const database = openDatabase();
    const engine = sqlite({ database });
    engines.push(engine);
    database.exec('BEGIN');
    const rolledBack = await engine.enqueue(sum, 1, 2);
    database.exec('ROLLBACK');
    database.exec('BEGIN');
    const committed = await engine.enqueue(sum, 3, 4);
    database.exec('COMMIT');
    expect(await engine.get(rolledBack.id)).toBeUndefined();
    expect(await engine.get(committed.id)).toMatchObject({ state: 'queued', args: [3, 4] });
    await engine.close();
    expect(database.isOpen).toBe(true);
    database.close();
  });

  it('refuses a database with a transaction open, and rejects once it is closed', async () => {
    const database = openDatabase();
    database.exec('BEGIN');
    expect(() => sqlite({ database })).toThrow(expect.objectContaining({ code: 'ERR_INVALID_OPTION' }));
    database.exec('COMMIT');
    const engine = sqlite({ database });
    database.close();
    await expect(engine.enqueue(sum, 1, 2)).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await engine.close();
  });

  it('takes integers of a database that reads them as BigInt', async () => {
    const {
      DatabaseSync,
    }: { DatabaseSync: new (path: string, options: object) => NodeDatabase } = require('node:sqlite');
    const engine = sqlite({ database: new DatabaseSync(newPath(), { readBigInts: true }) });
    engines.push(engine);
    const { id } = await engine.enqueue(sum, 1, 2);
    expect(await engine.get(id)).toMatchObject({ attempts: 0, enqueuedAt: expect.any(Date) });
    expect(await engine.stats()).toMatchObject({ queued: 1, due: 1 });
  });
});
