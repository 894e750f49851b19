// The pg-boss engine: the conformance suite over PostgreSQL, about tasks and workers.

import { join } from 'node:path';
import { describeConformance, type FragileStore } from './conformance.js';
import { ownPostgres } from './fixtures/own-server.js';
import { createStore, ownConfig } from './fixtures/pg-boss.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'pg-boss', () => {
  describeConformance('pg-boss', {
    module: join(__dirname, 'fixtures/pg-boss.ts'),
    createStore,
    createFragileStore,
    patience: 60_000,
    part: 'tasks',
  });
});

async function createFragileStore(): Promise<FragileStore> {
  const server = await ownPostgres();
  await server.start();
  return {
    config: ownConfig(server),
    stop: () => server.stop(),
    start: () => server.start(),
    remove: () => server.remove(),
  };
}
