// The BullMQ engine: the conformance suite over Redis, about tasks and workers.

import { join } from 'node:path';
import { describeConformance, type FragileStore } from './conformance.js';
import { createStore } from './fixtures/bullmq.js';
import { startRedis } from './fixtures/own-server.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq', () => {
  describeConformance('bullmq', {
    module: join(__dirname, 'fixtures/bullmq.ts'),
    createStore,
    createFragileStore,
    patience: 60_000,
    part: 'tasks',
  });
});

async function createFragileStore(): Promise<FragileStore> {
  const server = await startRedis();
  return {
    config: { connection: { host: '127.0.0.1', port: server.port } },
    stop: () => server.stop(),
    start: () => server.start(),
    remove: () => server.remove(),
  };
}
