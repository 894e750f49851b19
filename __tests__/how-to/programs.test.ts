// The programs of the how-to pages that need nothing but what this repository has installed, as a reader copies them. They run on
// the sources. Those that need a framework are in installed.test.ts.

import { mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { availableParallelism, tmpdir } from 'node:os';
import { join } from 'node:path';
import { pathToFileURL } from 'node:url';
import { describeWith } from '../drivers/requirements.js';
import { createDatabase, type OwnDatabase, onDatabase } from './fixtures/database.js';
import { listing } from './fixtures/pages.js';
import { Program } from './fixtures/program.js';

jest.setTimeout(120_000);

const root = join(__dirname, '../..');
const temp = mkdtempSync(join(tmpdir(), 'how-to-'));
symlinkSync(join(root, 'node_modules'), join(temp, 'node_modules'));
writeFileSync(join(temp, 'package.json'), '{ "type": "module" }');
// Their imports of the package lead to its sources.
const env = { TSX_TSCONFIG_PATH: join(root, 'tsconfig.json') };
const tsx = ['--import', pathToFileURL(require.resolve('tsx')).href];

afterAll(() => rmSync(temp, { recursive: true, force: true }));

/** A folder of its own for these files. */
function write(...files: [file: string, code: string][]): string {
  const folder = mkdtempSync(join(temp, 'program-'));
  for (const [file, code] of files) writeFileSync(join(folder, file), code);
  return folder;
}

function start(folder: string, ...args: string[]): Program {
  return new Program(folder, [...tsx, ...args], env);
}

async function post(url: string): Promise<number> {
  return (await fetch(url, { method: 'POST' })).status;
}

describe('coming-from.md', () => {
  it("has the server of FastAPI's tutorial", async () => {
    const folder = write(['server.ts', listing('how-to/coming-from.md', 'server.ts')]);
    const program = start(folder, 'server.ts');
    expect(await post(`${await program.url()}/send-notification/ada@example.com`)).toBe(200);
  });
});

describe('pm2-and-cluster.md', () => {
  const page = 'how-to/pm2-and-cluster.md';
  const files = ['server.mjs', 'cluster.mjs'].map((file): [string, string] => [file, listing(page, file)]);

  async function runUntil(signal: NodeJS.Signals): Promise<void> {
    const program = start(write(...files), 'cluster.mjs');
    expect(await post(`${await program.url()}/orders/7`)).toBe(201);
    await program.printed(new RegExp(`(listens on [^]*){${availableParallelism()}}`)); // Each worker.
    expect([await program.stop(signal), program.output]).toEqual([0, expect.stringContaining('receipt for order 7\n')]);
  }

  it('has a cluster that lets its tasks end at SIGTERM and at SIGINT', async () => {
    await Promise.all([runUntil('SIGTERM'), runUntil('SIGINT')]);
  });
});

describe('testing.md', () => {
  it.each([
    ['a test over HTTP', listing('testing.md', 'app.test.ts')],
    ['a test of what was enqueued', listing('testing.md', 'orders.test.ts', /from 'node:test'/)],
  ])('has %s that passes with node:test', async (_what, code) => {
    const program = start(write(['orders.test.ts', code]), '--test', 'orders.test.ts');
    expect([await program.ended(), program.output]).toEqual([0, expect.stringMatching(/pass 1\b/)]);
  });

  it('has a test of what was enqueued that passes with jest', async () => {
    const code = listing('testing.md', 'orders.test.ts', /^(?!.*from '(node:test|vitest)')/s);
    const config = {
      rootDir: write(['orders.test.ts', code], ['package.json', '{}']),
      testEnvironment: 'node',
      transform: {
        '^.+\\.ts$': [require.resolve('ts-jest'), { diagnostics: false, tsconfig: join(root, 'tsconfig.json') }],
      },
      moduleNameMapper: {
        '^(\\.{1,2}/.*)\\.js$': '$1',
        '^express-background-tasks$': join(root, 'lib'),
        '^express-background-tasks/testing$': join(root, 'lib/testing'),
      },
    };
    const jest = join(root, 'node_modules/jest/bin/jest.js');
    const program = start(config.rootDir, jest, '--config', JSON.stringify(config));
    expect([await program.ended(), program.output]).toEqual([0, expect.stringMatching(/Tests: +1 passed/)]);
  });
});

describeWith({ node: 22 }, 'with SQLite', () => {
  it('enqueues with the order, and not without', async () => {
    const program = start(write(['sqlite.ts', listing('how-to/transactions.md', 'sqlite.ts')]), 'sqlite.ts');
    expect(await post(`${await program.url()}/orders/7`)).toBe(201);
    await program.printed(/receipt for order 7\n/);
    expect(await post(`${await program.url()}/orders/7`)).toBe(500);
  });
});

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'with PostgreSQL', () => {
  let database: OwnDatabase;
  let orders = 0;

  beforeAll(async () => {
    database = await createDatabase();
  });

  afterAll(() => database.remove());

  describe('transactions.md', () => {
    // One after the other: their workers share the queue.
    it.each([
      ['node-postgres', 'pg.ts'],
      ['Knex', 'knex.ts'],
      ['Kysely', 'kysely.ts'],
      ['Drizzle', 'drizzle.ts'],
    ])('enqueues with the order, and not without: %s', async (_name, file) => {
      const program = start(write([file, onDatabase(database, listing('how-to/transactions.md', file))]), file);
      const order = `${await program.url()}/orders/${++orders}`;
      expect(await post(order)).toBe(201);
      await program.printed(new RegExp(`receipt for order ${orders}\n`));
      expect(await post(order)).toBe(500);
    });
  });

  describe('docker-and-kubernetes.md', () => {
    it('has a server with probes, which lets its tasks end at SIGTERM', async () => {
      const folder = write(['server.mjs', listing('how-to/docker-and-kubernetes.md', 'server.mjs')]);
      const program = new Program(folder, [...tsx, 'server.mjs'], { ...env, DATABASE_URL: database.url });
      const url = await program.url();
      for (const probe of ['live', 'ready']) expect((await fetch(`${url}/${probe}`)).status).toBe(200);
      expect(await post(`${url}/orders/7`)).toBe(201);
      await program.printed(/receipt for order 7\n/);
      expect(await program.stop('SIGTERM')).toBe(0);
    });
  });

  describe('changing-engines.md', () => {
    const page = 'how-to/changing-engines.md';

    it('moves what waits', async () => {
      const folder = write(
        ['old.ts', oldEngine],
        ['move.ts', onDatabase(database, listing(page, 'move.ts'))],
        ['server.ts', onDatabase(database, listing(page, 'server.ts'))],
      );
      expect(await start(folder, 'old.ts').ended()).toBe(0);
      const move = start(folder, 'move.ts');
      expect([await move.ended(), move.output]).toEqual([0, '2 tasks moved\n']);
      const program = start(folder, 'server.ts');
      await program.printed(/trial of ada is over\n/);
      await program.printed(/receipt for order 1\n/);
    });
  });
});

/** What the old engine of the page holds before the move. */
const oldEngine = `
import { task } from 'express-background-tasks';
import { sqlite } from 'express-background-tasks/sqlite';
const engine = sqlite({ path: 'tasks.db' });
await engine.enqueue(task('send receipt'), '1');
await engine.enqueue(task('remove trial', { delay: 3_000 }), 'ada');
await engine.enqueue(task('remove trial', { delay: 3_600_000 }), 'grace');
await engine.close();
`;
