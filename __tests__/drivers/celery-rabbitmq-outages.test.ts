// The hand-over to Celery over a RabbitMQ that fails, or whose queue is not as it should be.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import { describeOutages } from './celery-outages.js';
import {
  deleteQueue,
  eventually,
  failure,
  longPatience,
  open,
  startProxy,
  storedInRabbitmq,
  until,
  withChannel,
} from './fixtures/celery-broker.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ: outages', () => {
  describeOutages({
    name: 'RabbitMQ',
    scheme: 'amqp',
    start: async () => 5672,
    stop: async () => {},
    stored: (queue) => storedInRabbitmq(5672, queue),
    remove: deleteQueue,
  });
});

describeWith({ server: ['RabbitMQ', 5672] }, 'celery over RabbitMQ: its queue', () => {
  const broker = 'amqp://127.0.0.1:5672';
  let queue: string;

  beforeEach(() => {
    queue = `celery-test-${randomUUID()}`;
  });

  afterEach(() => deleteQueue(queue));

  it('of other arguments is refused as an option that does not fit, and left as it is', async () => {
    await withChannel(5672, (channel) => channel.assertQueue(queue, { durable: true, maxPriority: 10 }));
    const engine = open({ broker, queue });
    for (let round = 0; round < 3; round++) {
      await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringMatching(/"queueArguments" must.*inequivalent arg 'x-max-priority'/),
      });
    }
    const fitting = open({ broker, queue, queueArguments: { 'x-max-priority': 10 } });
    const { id } = await send(fitting, { name: 'a', args: [], priority: 10 });
    expect(await storedInRabbitmq(5672, queue)).toEqual([id]);
    await withChannel(5672, (channel) => channel.deleteQueue(queue));
    await send(engine, { name: 'a', args: [] });
  });

  it('belongs to another connection alone: enqueue rejects with the reason', async () => {
    await withChannel(5672, async (channel) => {
      await channel.assertQueue(queue, { exclusive: true });
      await expect(send(open({ broker, queue }), { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('RESOURCE_LOCKED'),
      });
    });
  });

  it('is durable, and so are the messages', async () => {
    await send(open({ broker, queue }), { name: 'a', args: [] });
    await withChannel(5672, async (channel) => {
      await expect(channel.assertQueue(queue, { durable: true })).resolves.toMatchObject({ messageCount: 1 });
      expect(await channel.get(queue, { noAck: true })).toMatchObject({ properties: { deliveryMode: 2 } });
    });
  });

  it('was deleted in the meantime: it is declared again, and the message is in it', async () => {
    const engine = open({ broker, queue });
    await send(engine, { name: 'a', args: [] });
    await withChannel(5672, (channel) => channel.deleteQueue(queue));
    const enqueued = await Promise.all([1, 2, 3].map((number) => send(engine, { name: 'a', args: [number] })));
    expect((await storedInRabbitmq(5672, queue)).sort()).toEqual(enqueued.map(({ id }) => id).sort());
  });

  it('is never there when the message comes: enqueue rejects', async () => {
    const proxy = await startProxy(5672);
    proxy.latency = 100;
    const shortLived = open({
      broker: `amqp://127.0.0.1:${proxy.port}`,
      queue,
      queueArguments: { 'x-expires': 1 },
    });
    await expect(send(shortLived, { name: 'a', args: [] })).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringContaining(`there is no queue "${queue}"`),
    });
  });

  it(
    'is blocked: enqueue rejects at once and sends nothing, and connects anew, also where the broker never unblocks',
    async () => {
      const proxy = await startProxy(5672);
      const engine = open({ broker: `amqp://127.0.0.1:${proxy.port}`, queue });
      const first = await send(engine, { name: 'a', args: [] });
      proxy.inject(connectionBlocked('low on memory'));
      await sleep(50);
      for (let round = 0; round < 3; round++) {
        const { error, took } = await failure(send(engine, { name: 'a', args: ['not sent'] }));
        expect(error).toMatchObject({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: 'celery: the task could not be stored: RabbitMQ takes no messages at present: low on memory',
        });
        expect(took).toBeLessThan(1000);
      }
      const start = Date.now();
      const last = await eventually(() => send(engine, { name: 'a', args: [] }));
      expect(Date.now() - start).toBeLessThan(5000);
      await until(() => proxy.connections === 1);
      expect(await storedInRabbitmq(5672, queue)).toEqual([first.id, last.id]);
    },
    longPatience,
  );

  it(
    'is blocked while messages are under way: those are still answered by the old connection',
    async () => {
      const proxy = await startProxy(5672);
      const engine = open({ broker: `amqp://127.0.0.1:${proxy.port}`, queue });
      await send(engine, { name: 'a', args: [] });
      await sleep(3000); // Only then does it connect anew.
      proxy.latency = 1000;
      const underway = [1, 2, 3].map((number) => send(engine, { name: 'a', args: [number] }));
      proxy.inject(connectionBlocked('low on disk'));
      await sleep(50);
      await failure(send(engine, { name: 'a', args: [] }));
      await Promise.all(underway);
      proxy.latency = 0;
      await eventually(() => send(engine, { name: 'a', args: [] }));
      expect(await storedInRabbitmq(5672, queue)).toHaveLength(5);
      await until(() => proxy.connections === 1);
    },
    longPatience,
  );
});

/** What a broker sends that reads no more from a connection. */
function connectionBlocked(reason: string): Buffer {
  return methodFrame(10, 60, Buffer.concat([Buffer.from([reason.length]), Buffer.from(reason)]));
}

function methodFrame(classId: number, methodId: number, args: Buffer): Buffer {
  const header = Buffer.alloc(7);
  header.writeUInt8(1, 0);
  header.writeUInt32BE(4 + args.length, 3);
  const method = Buffer.alloc(4);
  method.writeUInt16BE(classId, 0);
  method.writeUInt16BE(methodId, 2);
  return Buffer.concat([header, method, args, Buffer.from([0xce])]);
}
