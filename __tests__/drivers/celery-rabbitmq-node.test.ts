// The hand-over to Celery over a RabbitMQ that is stopped, refuses, or has no memory.

import { randomUUID } from 'node:crypto';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TaskEngine } from '../../lib/index.js';
import {
  deleteQueue,
  eventually,
  failure,
  Load,
  longPatience,
  open,
  patience,
  startProxy,
  storedInRabbitmq,
  until,
  withChannel,
} from './fixtures/celery-broker.js';
import { OwnRabbitmq, rabbitmqServer } from './fixtures/own-rabbitmq.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

describeWith({ program: ['test', '-x', rabbitmqServer] }, 'celery over RabbitMQ: a node that stops', () => {
  const queue = 'celery';
  let node: OwnRabbitmq;

  beforeAll(async () => {
    node = await OwnRabbitmq.start();
  }, longPatience);

  afterEach(async () => {
    await node.limitMessages(134_217_728);
    await withChannel(node.port, (channel) => channel.deleteQueue(queue));
  }, patience);

  afterAll(() => node.remove());

  it(
    'is stopped and started under load: each enqueue was stored, or rejected with the code',
    async () => {
      const load = new Load(open({ broker: `amqp://127.0.0.1:${node.port}` }));
      await load.acknowledged(100);
      await node.stop();
      await load.rejected(10);
      await node.start();
      await load.acknowledged(100);
      await load.end();
      const stored = new Set(await storedInRabbitmq(node.port, queue));
      expect(load.ids.filter((id) => !stored.has(id))).toEqual([]);
    },
    longPatience,
  );

  it(
    'does not let the user write: enqueue rejects with its reason, each time',
    async () => {
      await node.addUserWithoutWriting('reader', 'secret');
      const engine = open({ broker: `amqp://reader:secret@127.0.0.1:${node.port}` });
      for (let round = 0; round < 3; round++) {
        const failures = await Promise.all([1, 2].map((n) => failure(send(engine, { name: 'a', args: [n] }))));
        for (const { error } of failures) {
          expect(error).toMatchObject({
            code: 'ERR_ENGINE_UNAVAILABLE',
            message: expect.stringMatching(/403.*ACCESS_REFUSED.*amq\.default/),
          });
        }
      }
    },
    longPatience,
  );

  it(
    'has no such virtual host: the option is at fault, until there is one; its user may have a password of any letters',
    async () => {
      const engine = open({ broker: `amqp://ad%C3%A0:p%40%C3%9F%25@127.0.0.1:${node.port}/%2F%C5%BE` });
      await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringContaining('ACCESS_REFUSED'),
      });
      await node.addUser('adà', 'p@ß%');
      for (let round = 0; round < 2; round++) {
        await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({
          code: 'ERR_INVALID_OPTION',
          message: expect.stringContaining('celery: RabbitMQ refuses the virtual host in "broker": there is none'),
        });
      }
      await node.addVirtualHost('/ž', 'adà');
      await send(engine, { name: 'a', args: [] });
    },
    longPatience,
  );

  it.each([
    ['more than 1 MiB', 2_000_000, 3_000_000],
    ['less', 20_000, 30_000],
  ])(
    'takes no message over a limit of %s: that one is rejected with its reason, those beside it are stored',
    async (_, limit, size) => {
      await node.limitMessages(limit);
      const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
      await send(engine, { name: 'a', args: [] });
      const small = Array.from({ length: 50 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const large = failure(send(engine, { name: 'a', args: ['x'.repeat(size)] }));
      const more = Array.from({ length: 50 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const ids = (await Promise.all([...small, ...more])).map(({ id }) => id);
      expect((await large).error).toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringMatching(/406.*PRECONDITION_FAILED.*larger than/),
      });
      const stored = new Set(await storedInRabbitmq(node.port, queue));
      expect(ids.filter((id) => !stored.has(id))).toEqual([]);
      expect(stored.size).toBe(101);
    },
    longPatience,
  );

  describe('out of memory', () => {
    afterEach(() => node.clearMemoryAlarm(), patience);

    it(
      'enqueue rejects with the reason and leaves nothing behind, and works again when there is some',
      async () => {
        const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
        const ids = await enqueueUntilBlocked(engine, node);
        for (let round = 0; round < 10; round++) {
          const again = await failure(send(engine, { name: 'a', args: ['not sent'] }));
          expect(again.error).toMatchObject({
            code: 'ERR_ENGINE_UNAVAILABLE',
            message: expect.stringContaining('low on memory'),
          });
          expect(again.took).toBeLessThan(4000);
          await sleep(500); // In this time it connects anew, twice.
        }
        await node.clearMemoryAlarm();
        ids.push((await eventually(() => send(engine, { name: 'a', args: [] }))).id);
        const stored = await storedInRabbitmq(node.port, queue);
        expect(stored).toEqual(expect.arrayContaining(ids));
        expect(stored.length - ids.length).toBeLessThan(2);
      },
      longPatience,
    );

    it(
      'another one answers at its address: the engine connects anew, and no connection stays',
      async () => {
        const other = `celery-test-${randomUUID()}`;
        const proxy = await startProxy(node.port);
        const engine = open({ broker: `amqp://127.0.0.1:${proxy.port}`, queue: other });
        await enqueueUntilBlocked(engine, node);
        await expect(send(engine, { name: 'a', args: [] })).rejects.toThrow('low on memory');
        proxy.redirect(5672);
        const start = Date.now();
        const { id } = await eventually(() => send(engine, { name: 'a', args: [] }));
        expect(Date.now() - start).toBeLessThan(5000);
        expect(await storedInRabbitmq(5672, other)).toContain(id);
        await until(() => proxy.connections === 1);
        await deleteQueue(other);
      },
      longPatience,
    );
  });
});

/** Returns the ids of the tasks that it took. At most one more is on its way: the one that got no answer. */
async function enqueueUntilBlocked(engine: TaskEngine, node: OwnRabbitmq): Promise<string[]> {
  const ids = [(await send(engine, { name: 'a', args: [] })).id];
  await node.raiseMemoryAlarm();
  const enqueue = async (): Promise<boolean> => {
    ids.push((await send(engine, { name: 'a', args: [] })).id);
    return false;
  };
  const { error, took } = await failure(until(enqueue)); // A broker that has not noticed yet still takes one.
  expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
  expect(took).toBeLessThan(patience);
  return ids;
}
