// Celery's brokers fail in every way: enqueue says so in time, works again by itself, and leaves nothing behind.

import { spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import { type AddressInfo, createServer, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TaskEngine } from '../../lib/index.js';
import {
  eventually,
  failure,
  inTime,
  longPatience,
  open,
  patience,
  startProxy,
  until,
} from './fixtures/celery-broker.js';
import { send } from './fixtures/send.js';
import type { TcpProxy } from './fixtures/tcp-proxy.js';

export interface Broker {
  readonly name: string;
  readonly scheme: string;
  /** Where a server listens. */
  start(): Promise<number>;
  stop(): Promise<void>;
  /** The ids of the tasks in the queue. */
  stored(queue: string): Promise<string[]>;
  remove(queue: string): Promise<void>;
}

export function describeOutages(broker: Broker): void {
  let port: number;
  let proxy: TcpProxy;
  let queue: string;
  let engine: TaskEngine;

  const enqueue = (...args: unknown[]): Promise<{ id: string }> => send(engine, { name: 'a', args });

  beforeAll(async () => {
    port = await broker.start();
  }, patience);

  afterAll(() => broker.stop());

  beforeEach(async () => {
    proxy = await startProxy(port);
    queue = `celery-test-${randomUUID()}`;
    engine = open({ broker: `${broker.scheme}://127.0.0.1:${proxy.port}`, queue });
  });

  afterEach(() => broker.remove(queue));

  it(
    'the connection is cut while idle: the next enqueue opens another one',
    async () => {
      const { id } = await enqueue();
      for (let round = 0; round < 5; round++) {
        proxy.cut();
        await until(() => proxy.connections === 0);
        await sleep(10); // The engine has seen it, too.
        await enqueue();
        expect(proxy.connections).toBe(1);
      }
      expect(await broker.stored(queue)).toHaveLength(6);
      expect(await broker.stored(queue)).toContain(id);
    },
    longPatience,
  );

  it(
    'the connection is cut while the broker has not answered: enqueue rejects at once',
    async () => {
      await enqueue();
      proxy.hold();
      const failures = [1, 2, 3].map((number) => failure(enqueue(number)));
      await sleep(50);
      proxy.cut();
      for (const { error, took } of await Promise.all(failures)) {
        expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
        expect(took).toBeLessThan(4000);
      }
      proxy.release();
      await enqueue();
      expect(await broker.stored(queue)).toHaveLength(2);
    },
    longPatience,
  );

  it(
    'the broker falls silent: enqueue rejects in time, and the connection is given up',
    async () => {
      await enqueue();
      proxy.hold();
      const { error, took } = await failure(enqueue('x'.repeat(1_000_000)));
      expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', message: expect.stringContaining('no answer') });
      expect(took).toBeLessThan(inTime);
      const next = enqueue();
      await until(() => proxy.connections === 2); // The proxy, which reads nothing, has not seen the end of the first.
      proxy.release();
      await next;
      await until(() => proxy.connections === 1);
    },
    longPatience,
  );

  it(
    'the broker accepts connections and says nothing: enqueue rejects in time, and no connection stays',
    async () => {
      const sockets = new Set<Socket>();
      const silent = createServer((socket) => {
        sockets.add(socket);
        socket.on('error', () => {});
        socket.on('close', () => sockets.delete(socket));
        socket.resume();
      });
      silent.listen(0, '127.0.0.1');
      await once(silent, 'listening');
      const { port: silentPort } = silent.address() as AddressInfo;
      try {
        const mute = open({ broker: `${broker.scheme}://127.0.0.1:${silentPort}`, queue });
        const failures = await Promise.all([1, 2].map((n) => failure(send(mute, { name: 'a', args: [n] }))));
        for (const { error, took } of failures) {
          expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
          expect(took).toBeLessThan(inTime);
        }
        await until(() => sockets.size === 0);
      } finally {
        for (const socket of sockets) socket.destroy();
        silent.close();
      }
    },
    longPatience,
  );

  it(
    'the broker is away again and again: no connection stays behind',
    async () => {
      for (let round = 0; round < 5; round++) {
        await proxy.stop();
        const failures = await Promise.all([1, 2, 3].map((number) => failure(enqueue(number))));
        for (const { error } of failures) expect(error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
        await proxy.start();
        await Promise.all([1, 2, 3].map((number) => eventually(() => enqueue(number))));
        await until(() => proxy.connections === 1);
      }
      expect(await broker.stored(queue)).toHaveLength(15);
      await engine.close();
      await until(() => proxy.connections === 0);
    },
    longPatience,
  );

  it('many enqueues at once share one connection', async () => {
    await Promise.all(Array.from({ length: 200 }, (_, number) => enqueue(number)));
    expect(proxy.connections).toBe(1);
    expect(new Set(await broker.stored(queue)).size).toBe(200);
  });

  it('close() waits for what is being sent', async () => {
    const enqueued = enqueue();
    await engine.close();
    const { id } = await enqueued;
    expect(await broker.stored(queue)).toEqual([id]);
    expect((await failure(enqueue())).error).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE', status: 503 });
  });

  it(
    'close() does not wait for a broker that says nothing',
    async () => {
      await enqueue();
      proxy.hold();
      const start = Date.now();
      await engine.close();
      expect(Date.now() - start).toBeLessThan(4000);
      proxy.release();
      await until(() => proxy.connections === 0);
    },
    longPatience,
  );

  it('refused credentials are the reason given, but not told', async () => {
    const { error } = await failure(
      send(open({ broker: `${broker.scheme}://nobody:secret@127.0.0.1:${proxy.port}`, queue }), {
        name: 'a',
        args: [],
      }),
    );
    expect(error).toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringMatching(/ACCESS.REFUSED|WRONGPASS/),
    });
    expect(error.message).not.toContain('secret');
    await until(() => proxy.connections === 0);
  });

  it.each([
    ['after a hand-over', () => proxy.port, false],
    ['after one that failed', () => 1, false],
    ['after one to a broker that has fallen silent since', () => proxy.port, true],
  ])(
    'the process can end after close(), %s',
    async (_, portOf, isSilent) => {
      const program = `
        const { celery } = require('../../lib/drivers/celery/index.ts');
        const { task } = require('../../lib/index.ts');
        const engine = celery({ broker: '${broker.scheme}://127.0.0.1:${portOf()}', queue: '${queue}' });
        process.stdin.on('end', () => engine.close()).resume();
        engine.enqueue(task('a')).catch(() => {}).then(() => console.log('asked'));`;
      const args = ['--require', `${__dirname}/../fixtures/typescript.cjs`, '--eval', program];
      const child = spawn(process.execPath, args, {
        cwd: __dirname,
        timeout: patience,
        stdio: ['pipe', 'pipe', 'inherit'],
      });
      await once(child.stdout, 'data');
      if (isSilent) proxy.hold();
      child.stdin.end();
      expect(await once(child, 'exit')).toEqual([0, null]);
    },
    longPatience,
  );
}
