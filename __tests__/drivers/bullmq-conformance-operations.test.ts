// The BullMQ engine: the conformance suite over Redis, about what people do with a queue.

import { join } from 'node:path';
import { describeConformance } from './conformance.js';
import { createStore } from './fixtures/bullmq.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq, operated', () => {
  describeConformance('bullmq, operated', {
    module: join(__dirname, 'fixtures/bullmq.ts'),
    createStore,
    patience: 60_000,
    part: 'operations',
  });
});
