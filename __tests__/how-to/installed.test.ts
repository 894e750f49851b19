// The programs of the how-to pages that need a framework or a tool which this repository has not installed, as a reader copies
// them: with the packed library, in folders of their own.

import { mkdirSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { describeWith } from '../drivers/requirements.js';
import { pack, root, run, timeout } from '../fixtures/packed.js';
import { createDatabase, type OwnDatabase, onDatabase } from './fixtures/database.js';
import { listing, listingsOf } from './fixtures/pages.js';
import { Program } from './fixtures/program.js';

jest.setTimeout(3 * timeout);

const node = Number.parseInt(process.versions.node, 10);
const tsc = join(root, 'node_modules/typescript/bin/tsc');

describeWith({ npm: true }, 'installed', () => {
  const temp = mkdtempSync(join(tmpdir(), 'how-to-installed-'));
  afterAll(() => rmSync(temp, { recursive: true, force: true }));

  /** A project in a folder of its own, with this library and these packages. */
  async function create(files: Record<string, string>, ...packages: string[]): Promise<string> {
    const folder = mkdtempSync(join(temp, 'project-'));
    writeFiles(folder, { 'package.json': '{ "private": true, "type": "module" }', ...files });
    await run(folder, 'npm', 'install', '--prefer-offline', '--no-audit', '--no-fund', await pack(), ...packages);
    return folder;
  }

  /** Checks the types against those of the packages, and writes JavaScript beside the sources. */
  async function compile(folder: string, ...files: string[]): Promise<void> {
    const compilerOptions = {
      target: 'ES2023',
      module: 'nodenext',
      strict: true,
      experimentalDecorators: true,
      emitDecoratorMetadata: true,
      skipLibCheck: true,
      types: ['node'],
    };
    writeFiles(folder, { 'tsconfig.json': JSON.stringify({ compilerOptions, files }) });
    await run(folder, process.execPath, tsc);
  }

  describe('nestjs.md', () => {
    const page = 'how-to/nestjs.md';

    it.each([
      ['11.2.10', 'commonjs'],
      ['12.5.1', 'module'],
    ])('has programs for NestJS %s, as %s, that run and stop at SIGTERM', async (version, type) => {
      const programs = { 'main.ts': listing(page, 'main.ts'), 'durable.ts': listing(page, 'durable.ts') };
      const files = { ...programs, 'package.json': JSON.stringify({ private: true, type }) };
      const nest = ['common', 'core', 'platform-express'].map((name) => `@nestjs/${name}@${version}`);
      const others = ['reflect-metadata@0.2', 'rxjs@7', 'close-with-grace@2', '@types/express@5', '@types/node@20'];
      const folder = await create(files, ...nest, ...others);
      await compile(folder, ...Object.keys(programs));

      const program = new Program(folder, ['main.js']);
      expect(await post(`${await program.url()}/orders/7`)).toMatchObject({ status: 201, body: { id: '7' } });
      await program.printed(/mail to ada@example.com: Order 7\n/);
      expect(await program.stop('SIGTERM')).toBe(0);

      if (node < 24) return; // Before that, SQLite needs another package.
      const durable = new Program(folder, ['durable.js']);
      const { body } = await post(`${await durable.url()}/orders/8`);
      await durable.printed(/mail to ada@example.com: Order 8\n/);
      const status = await fetch(`${await durable.url()}/tasks/${body?.id}`);
      expect(await status.json()).toMatchObject({ name: 'send receipt' });
      expect((await fetch(`${await durable.url()}/tasks/unknown`)).status).toBe(404);
      expect(await durable.stop('SIGTERM')).toBe(0);
    });
  });

  describe('nextjs.md', () => {
    const page = 'how-to/nextjs.md';

    it('has a custom server whose routes add tasks, those of Express and those of Next.js', async () => {
      const files = Object.fromEntries(listingsOf(page).map(({ file, code }) => [file, code]));
      const packages = ['next@16.4.6', 'react@19', 'react-dom@19', 'express@5', 'close-with-grace@2'];
      const program = new Program(await create(files, ...packages), ['server.mjs'], { NEXT_TELEMETRY_DISABLED: '1' });
      expect(await post(`${await program.url()}/orders/7`)).toMatchObject({ status: 201, body: { id: '7' } });
      await program.printed(/receipt for order 7\n/);
      expect(await post(`${await program.url()}/visits`)).toMatchObject({ status: 204 });
      await program.printed(/a visit\n/);
      expect(await program.stop('SIGTERM')).toBe(0);
    });
  });

  describe('serverless.md', () => {
    const page = 'how-to/serverless.md';

    it('has a function for Vercel and one for AWS Lambda, which wait for their tasks', async () => {
      const files = {
        'server.ts': listing(page, 'server.ts'),
        'lambda.ts': listing(page, 'lambda.ts'),
        'vercel.js': vercel,
        'aws.js': aws,
      };
      const packages = [
        '@vercel/functions@3.9.9',
        'serverless-http@4.0.0',
        'express@5',
        '@types/express@5',
        '@types/node@20',
      ];
      const folder = await create(files, ...packages);
      await compile(folder, 'server.ts', 'lambda.ts');
      for (const host of ['vercel.js', 'aws.js']) {
        const { stdout } = await run(folder, process.execPath, host);
        expect(stdout).toBe('receipt for order 7\n201 {"id":"7"}\n');
      }
    });
  });

  (node < 22 ? describe.skip : describe)('testing.md', () => {
    it('has a test of what was enqueued that passes with vitest', async () => {
      const code = listing('testing.md', 'orders.test.ts', /from 'vitest'/);
      const folder = await create({ 'orders.test.ts': code }, 'vitest@5.1.2', 'express@5');
      const { stdout } = await run(folder, 'npx', 'vitest', 'run');
      expect(stdout).toMatch(/1 passed/);
    });
  });

  describe('pm2-and-cluster.md', () => {
    const page = 'how-to/pm2-and-cluster.md';

    it.each([
      ['with the kill_timeout of the page, tasks end', (code: string) => code, /receipt for order 7\n/],
      ['with that of PM2, they are lost', withoutKillTimeout, /^$/],
    ])('at pm2 stop, %s', async (_title, edited, expected) => {
      // PM2 takes the listening of its processes into its own hands, so that the port has to be a real one.
      const port = 20_000 + (process.pid % 10_000);
      const files = {
        'server.mjs': edited(listing(page, 'server.mjs')).replace('3000', String(port)),
        'ecosystem.config.cjs': edited(listing(page, 'ecosystem.config.cjs')),
      };
      const folder = await create(files, 'pm2@7.0.4', 'express@5', 'close-with-grace@2');
      const home = { PM2_HOME: join(folder, 'pm2') };
      const pm2 = async (...args: string[]): Promise<void> => {
        const program = new Program(folder, ['node_modules/pm2/bin/pm2', ...args], home);
        if ((await program.ended()) !== 0) throw new Error(program.output);
      };
      try {
        await pm2('start', 'ecosystem.config.cjs');
        expect(await post(`http://localhost:${port}/orders/7`)).toMatchObject({ status: 201 });
        await pm2('stop', 'shop');
        expect(outputOf(home.PM2_HOME)).toMatch(expected);
      } finally {
        await pm2('kill');
      }
    });
  });

  describeWith({ npm: true, node: 22, server: ['PostgreSQL', 5432] }, 'transactions.md', () => {
    let database: OwnDatabase;

    beforeAll(async () => {
      database = await createDatabase();
      await database.query('CREATE TABLE orders (id int PRIMARY KEY)');
    });

    afterAll(() => database.remove());

    it('enqueues in a transaction of Prisma', async () => {
      const page = 'how-to/transactions.md';
      const files = {
        'prisma.ts': onDatabase(database, listing(page, 'prisma.ts')),
        'schema.prisma': listing(page, 'schema.prisma'),
      };
      const prisma = ['prisma', '@prisma/client', '@prisma/adapter-pg'].map((name) => `${name}@7.10.0`);
      const types = ['@types/express@5', '@types/node@20', '@types/pg@8'];
      const folder = await create(files, '--ignore-scripts', ...prisma, 'pg-boss@12', 'express@5', ...types);
      // Prisma would download its program for migrations, which this does not need.
      await run(
        folder,
        'env',
        'PRISMA_SCHEMA_ENGINE_BINARY=/bin/true',
        'npx',
        'prisma',
        'generate',
        '--schema',
        'schema.prisma',
      );
      await compile(folder, 'prisma.ts');
      const program = new Program(folder, ['prisma.js']);
      expect(await post(`${await program.url()}/orders/7`)).toMatchObject({ status: 201 });
      await program.printed(/receipt for order 7\n/);
      expect(await post(`${await program.url()}/orders/7`)).toMatchObject({ status: 500 });
    });
  });
});

/** With a task that would not end before PM2 has begun to stop it, however slow this machine is. */
function withoutKillTimeout(code: string): string {
  return code
    .replace(/^ *kill_timeout: .*\n/m, '')
    .replace('3_000', '60_000')
    .replace('{ timeout: 5_000 }', '');
}

/** Vercel gives a function its waitUntil in this way. */
const vercel = `
  import { once } from 'node:events';
  const work = [];
  globalThis[Symbol.for('@vercel/request-context')] = { get: () => ({ waitUntil: (promise) => work.push(promise) }) };
  const { default: app } = await import('./server.js');
  const server = app.listen(0);
  await once(server, 'listening');
  const response = await fetch('http://localhost:' + server.address().port + '/orders/7', { method: 'POST' });
  const body = await response.text();
  if (work.length !== 1) throw new Error('waitUntil was called ' + work.length + ' times');
  await work[0];
  console.log(response.status, body);
  server.close();
`;

/** What an HTTP API of API Gateway sends. */
const aws = `
  import { handler } from './lambda.js';
  const event = {
    version: '2.0',
    rawPath: '/orders/7',
    rawQueryString: '',
    headers: { host: 'localhost' },
    requestContext: { http: { method: 'POST', path: '/orders/7', sourceIp: '127.0.0.1' } },
    isBase64Encoded: false,
  };
  const { statusCode, body } = await handler(event, {});
  console.log(statusCode, body);
`;

function writeFiles(folder: string, files: Record<string, string>): void {
  for (const [file, code] of Object.entries(files)) {
    mkdirSync(dirname(join(folder, file)), { recursive: true });
    writeFileSync(join(folder, file), code);
  }
}

async function post(url: string): Promise<{ status: number; body: { id?: string } | undefined }> {
  const response = await fetch(url, { method: 'POST' });
  const text = await response.text();
  return { status: response.status, body: text.startsWith('{') ? JSON.parse(text) : undefined };
}

/** What the processes of PM2 have printed. */
function outputOf(home: string): string {
  const logs = join(home, 'logs');
  return readdirSync(logs)
    .map((file) => readFileSync(join(logs, file), 'utf8'))
    .join('');
}
