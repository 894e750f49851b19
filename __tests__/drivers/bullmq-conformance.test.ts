// The BullMQ engine: the conformance suite over Redis.

import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { describeConformance, type EngineStore, type FragileStore } from './conformance.js';
import { connection, obliterate } from './fixtures/bullmq.js';
import { startRedis } from './fixtures/own-server.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['Redis', 6379] }, 'bullmq', () => {
  describeConformance('bullmq', {
    module: join(__dirname, 'fixtures/bullmq.ts'),
    createStore,
    createFragileStore,
    patience: 60_000,
  });
});

function createStore(): EngineStore {
  const queue = `tasks-${randomUUID()}`;
  return { config: { connection, queue }, remove: () => obliterate(queue) };
}

async function createFragileStore(): Promise<FragileStore> {
  const server = await startRedis();
  return {
    config: { connection: { host: '127.0.0.1', port: server.port } },
    stop: () => server.stop(),
    start: () => server.start(),
    remove: () => server.remove(),
  };
}
