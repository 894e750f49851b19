// The hand-over to Celery: what get() tells of the results.

import { randomUUID } from 'node:crypto';
import { Redis } from 'ioredis';
import { celery } from '../../lib/drivers/celery/index.js';
import type { TaskEngine } from '../../lib/index.js';
import { type OwnServer, startRedis } from './fixtures/own-server.js';
import { send } from './fixtures/send.js';
import { closing } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ program: ['redis-server', '--version'] }, 'celery: get()', () => {
  let redis: OwnServer;
  let client: Redis;
  let engine: TaskEngine;
  let id: string;

  beforeAll(async () => {
    redis = await startRedis();
    client = new Redis(redis.port, '127.0.0.1');
  });

  afterAll(async () => {
    client.disconnect();
    await redis.remove();
  });

  beforeEach(async () => {
    const url = `redis://127.0.0.1:${redis.port}`;
    engine = closing(celery({ broker: url, backend: url }));
    ({ id } = await send(engine, { name: 'a', args: [] }));
  });

  const keep = (meta: unknown): Promise<unknown> =>
    client.set(`celery-task-meta-${id}`, typeof meta === 'string' ? meta : JSON.stringify(meta));

  it('undefined until a worker has begun: Celery knows nothing of a task that waits', async () => {
    expect(await engine.get(id)).toBeUndefined();
  });

  it('undefined for an id that enqueue did not give, whatever is kept under it', async () => {
    for (const other of [randomUUID(), '', 'x', `${id}0`, '../a', '\ud800', 'x'.repeat(10_000)]) {
      await client.set(`celery-task-meta-${other}`, JSON.stringify({ status: 'SUCCESS', result: 'secret' }));
      expect(await engine.get(other)).toBeUndefined();
    }
  });

  it('finds an id in upper case', async () => {
    await keep({ status: 'SUCCESS' });
    expect(await engine.get(id.toUpperCase())).toEqual({ ...(await engine.get(id)), id });
  });

  it.each([
    ['PENDING', 'queued'],
    ['RECEIVED', 'queued'],
    ['STARTED', 'running'],
    ['PROGRESS', 'running'],
    ['RETRY', 'queued'],
    ['SUCCESS', 'succeeded'],
    ['FAILURE', 'failed'],
    ['REVOKED', 'cancelled'],
  ])('%s is %s', async (status, state) => {
    await keep({ status });
    expect(await engine.get(id)).toMatchObject({ id, state });
  });

  it('what a task passes to update_state() while it runs is its progress', async () => {
    await keep({ status: 'PROGRESS', result: { percent: 40 } });
    expect(await engine.get(id)).toMatchObject({ state: 'running', progress: { percent: 40 } });
    await keep({ status: 'STARTED', result: { pid: 1, hostname: 'worker@host' } });
    expect(await engine.get(id)).not.toHaveProperty('progress');
  });

  it('without result_extended there is no name, and the attempts are one', async () => {
    await keep({ status: 'STARTED', result: { pid: 1 }, date_done: null });
    expect(await engine.get(id)).toEqual({ id, name: '', state: 'running', attempts: 1, enqueuedAt: expect.any(Date) });
  });

  it('with result_extended there are both', async () => {
    await keep({ status: 'SUCCESS', result: null, name: 'images.resize', retries: 2 });
    expect(await engine.get(id)).toMatchObject({ name: 'images.resize', attempts: 3, result: null });
  });

  it.each([
    ['2026-01-02T03:04:05.678901', '2026-01-02T03:04:05.678Z'],
    ['2026-01-02T03:04:05.678901+00:00', '2026-01-02T03:04:05.678Z'],
    ['2026-01-02T03:04:05Z', '2026-01-02T03:04:05.000Z'],
    ['2026-01-02T03:04:05+02:00', '2026-01-02T01:04:05.000Z'],
  ])('date_done %s is UTC unless it says otherwise', async (date, expected) => {
    await keep({ status: 'SUCCESS', date_done: date });
    expect((await engine.get(id))?.finishedAt?.toISOString()).toBe(expected);
  });

  it.each([
    ['no exception', null, { name: 'Error', message: '' }],
    [
      'a revoked task',
      { exc_type: 'TaskRevokedError', exc_message: ['revoked'] },
      { name: 'TaskRevokedError', message: 'revoked' },
    ],
    ['a message that is no list', { exc_type: 'E', exc_message: 'text' }, { name: 'E', message: 'text' }],
    ['an argument that is no text', { exc_type: 'E', exc_message: [{ a: 1 }] }, { name: 'E', message: '{"a":1}' }],
  ])('the error of %s', async (_, result, error) => {
    await keep({ status: 'FAILURE', result });
    expect((await engine.get(id))?.error).toEqual(error);
  });

  it.each(['\u0080\u0004pickle', '{"status": "SUCCESS", "result": NaN}'])(
    'rejects for what is not JSON: %j',
    async (meta) => {
      await keep(meta);
      await expect(engine.get(id)).rejects.toMatchObject({
        code: 'ERR_INVALID_OPTION',
        message: expect.stringContaining('result_serializer'),
      });
    },
  );

  it('JSON of another shape is a task that runs', async () => {
    await keep('null');
    expect(await engine.get(id)).toMatchObject({ state: 'running', name: '', attempts: 1 });
  });

  describe('without the result', () => {
    const megabytes = 'x'.repeat(2_000_000);
    /** As Celery writes it, its keys in their order; `extended` is what it adds with result_extended. */
    const metaOf = (result: unknown, extended: object = {}, status = 'SUCCESS'): object => ({
      status,
      result,
      traceback: null,
      children: [],
      date_done: '2026-01-02T03:04:05.678901',
      ...extended,
      task_id: id,
    });
    const extendedBy = (args: unknown): object => ({
      name: 'a',
      args,
      kwargs: { date_done: 'x' },
      worker: 'celery@host',
      retries: 2,
      queue: 'celery',
    });
    /** Python's, with spaces. */
    const pythonJson = (meta: object): string => JSON.stringify(meta, undefined, 1).replace(/\n */g, ' ');
    const outputOfRedis = async (): Promise<number> =>
      Number(/total_net_output_bytes:(\d+)/.exec(await client.info('stats'))?.[1]);
    const imitation = { args: 1, b: { date_done: 1, retries: 5, args: 1 }, retries: 7 };

    const kept: [string, () => object][] = [
      ['a small result', () => metaOf({ a: 1 })],
      ['a large result', () => metaOf(megabytes)],
      ['a large result, extended', () => metaOf(megabytes, extendedBy([1]))],
      ['large arguments', () => metaOf('small', extendedBy([megabytes]))],
      ['a large result with the keys of Celery in it', () => metaOf([imitation, megabytes, imitation])],
      [
        'the keys of Celery everywhere',
        () => metaOf([imitation, megabytes, imitation], extendedBy([imitation, '"date_done": 1, "retries": 4', []])),
      ],
      ['large arguments with the keys of Celery in them', () => metaOf(imitation, extendedBy([imitation, megabytes]))],
      ['a large result that is text of such JSON', () => metaOf(pythonJson(metaOf([imitation, megabytes])))],
      ['a large result of letters that take several bytes', () => metaOf('žluťoučký 🐎'.repeat(100_000))],
    ];
    it.each(kept)('%s: the same record, and a few kilobytes of it are read', async (_, meta) => {
      for (const json of [JSON.stringify(meta()), pythonJson(meta())]) {
        await keep(json);
        const { result: _result, ...rest } = (await engine.get(id)) ?? {};
        const before = await outputOfRedis();
        expect(await engine.get(id, { result: false })).toEqual(rest);
        expect((await outputOfRedis()) - before).toBeLessThan(30_000);
      }
    });

    const wholly: [string, () => object][] = [
      [
        'a failure, whose error is its result',
        () => metaOf({ exc_type: 'E', exc_message: [megabytes] }, {}, 'FAILURE'),
      ],
      ['a state of its own', () => metaOf(megabytes, {}, 'PROGRESS')],
      ['a large result beside large arguments', () => metaOf(megabytes, extendedBy([megabytes]))],
      ['keys in another order', () => ({ task_id: id, date_done: '2026-01-02', result: megabytes, status: 'SUCCESS' })],
    ];
    it.each(wholly)('%s: the same record', async (_, meta) => {
      await keep(meta());
      const { result: _result, ...rest } = (await engine.get(id)) ?? {};
      expect(await engine.get(id, { result: false })).toEqual(rest);
    });

    it('an unknown task is undefined', async () => {
      expect(await engine.get(id, { result: false })).toBeUndefined();
    });
  });
});
