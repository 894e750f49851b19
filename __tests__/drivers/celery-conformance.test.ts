// The hand-over to Celery: the conformance suite over RabbitMQ and over Redis.

import { randomUUID } from 'node:crypto';
import { describeConformance, type FragileStore } from './conformance.js';
import { deleteQueue } from './fixtures/celery.js';
import { startRedis } from './fixtures/own-server.js';
import { TcpProxy } from './fixtures/tcp-proxy.js';
import { describeWith } from './requirements.js';

const lacks = [
  ...(['work', 'get', 'retries', 'priority', 'key'] as const),
  ...(['enqueueMany', 'list', 'stats', 'cancel', 'retry', 'promote', 'remove', 'schedule', 'progress'] as const),
];

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ', () => {
  describeConformance('celery over RabbitMQ', {
    module: `${__dirname}/fixtures/celery.ts`,
    lacks,
    createStore,
    createFragileStore: createStore,
  });

  async function createStore(): Promise<FragileStore> {
    const proxy = new TcpProxy(5672);
    await proxy.start();
    const queue = `celery-test-${randomUUID()}`;
    return {
      config: { broker: `amqp://127.0.0.1:${proxy.port}`, queue },
      stop: () => proxy.stop(),
      start: () => proxy.start(),
      remove: async () => {
        await proxy.stop();
        await deleteQueue(queue);
      },
    };
  }
});

describeWith({ program: ['redis-server', '--version'] }, 'celery over Redis', () => {
  describeConformance('celery over Redis', {
    module: `${__dirname}/fixtures/celery.ts`,
    lacks,
    createStore,
    createFragileStore: createStore,
  });

  async function createStore(): Promise<FragileStore> {
    const server = await startRedis();
    return {
      config: { broker: `redis://127.0.0.1:${server.port}` },
      stop: () => server.stop(),
      start: () => server.start(),
      remove: () => server.remove(),
    };
  }
});
