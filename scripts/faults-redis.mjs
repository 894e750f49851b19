// node scripts/faults-redis.mjs [rounds]: the BullMQ engine under faults, on a Redis of its own.

import { createRequire } from 'node:module';
import { fileURLToPath } from 'node:url';
import { faults } from './faults.mjs';

const { ownRedis } = createRequire(import.meta.url)('../__tests__/drivers/fixtures/own-server.ts');

await faults({
  name: 'Redis',
  module: fileURLToPath(new URL('../__tests__/drivers/fixtures/bullmq.ts', import.meta.url)),
  makeServer: ownRedis,
  configOf: ({ port }) => ({ connection: { host: '127.0.0.1', port } }),
});
