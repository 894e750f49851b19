// The pg-boss engine: the conformance suite over PostgreSQL, about what people do with a queue.

import { join } from 'node:path';
import { describeConformance } from './conformance.js';
import { createStore } from './fixtures/pg-boss.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'pg-boss, operated', () => {
  describeConformance('pg-boss, operated', {
    module: join(__dirname, 'fixtures/pg-boss.ts'),
    createStore,
    patience: 60_000,
    part: 'operations',
  });
});
