// node scripts/faults-postgres.mjs [rounds]: the pg-boss engine under faults, on a PostgreSQL of its own.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { faults } from './faults.mjs';

const { ownPostgres } = createRequire(import.meta.url)('../__tests__/drivers/fixtures/own-server.ts');

await faults({
  name: 'PostgreSQL',
  module: fileURLToPath(new URL('../__tests__/drivers/fixtures/pg-boss.ts', import.meta.url)),
  makeServer: ownPostgres,
  configOf: ({ port }) => ({ connectionString: `postgres://postgres@127.0.0.1:${port}/postgres`, schema: 'tasks' }),
});
