// The hand-over to Celery over a RabbitMQ that is stopped, refuses, or has no memory.

import {
  eventually,
  failure,
  Load,
  longPatience,
  open,
  patience,
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
      await withChannel(node.port, (channel) => channel.purgeQueue(queue));
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

  it.each([
    ['more than 1 MiB', 2_000_000, 3_000_000],
    ['less', 20_000, 30_000],
  ])(
    'takes no message over a limit of %s: that one is rejected with its reason, those beside it are stored',
    async (_, limit, size) => {
      await node.limitMessages(limit);
      const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
      await send(engine, { name: 'a', args: [] });
      const small = Array.from({ length: 100 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const large = failure(send(engine, { name: 'a', args: ['x'.repeat(size)] }));
      const more = Array.from({ length: 100 }, (_value, number) => send(engine, { name: 'a', args: [number] }));
      const ids = (await Promise.all([...small, ...more])).map(({ id }) => id);
      expect((await large).error).toMatchObject({
        code: 'ERR_ENGINE_UNAVAILABLE',
        message: expect.stringMatching(/406.*PRECONDITION_FAILED.*larger than/),
      });
      const stored = new Set(await storedInRabbitmq(node.port, queue));
      expect(ids.filter((id) => !stored.has(id))).toEqual([]);
      expect(stored.size).toBe(201);
      await withChannel(node.port, (channel) => channel.purgeQueue(queue));
      await node.limitMessages(134_217_728);
    },
    longPatience,
  );

  it(
    'runs out of memory: enqueue rejects in time, and works again when there is some',
    async () => {
      const engine = open({ broker: `amqp://127.0.0.1:${node.port}` });
      await send(engine, { name: 'a', args: [] });
      await node.raiseMemoryAlarm();
      // A broker that has not noticed yet still takes one.
      const { error, took } = await failure(until(() => send(engine, { name: 'a', args: [] }).then(() => false)));
      expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
      expect(took).toBeLessThan(patience);
      for (let round = 0; round < 3; round++) {
        const again = await failure(send(engine, { name: 'a', args: [] }));
        expect(again.error).toMatchObject({
          code: 'ERR_ENGINE_UNAVAILABLE',
          message: expect.stringContaining('memory'),
        });
        expect(again.took).toBeLessThan(4000);
      }
      await node.clearMemoryAlarm();
      await eventually(() => send(engine, { name: 'a', args: [] }));
    },
    longPatience,
  );
});
