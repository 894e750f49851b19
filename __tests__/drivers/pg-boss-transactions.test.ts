// Tasks that are enqueued on pg-boss in a transaction of the application.

import { setTimeout as sleep } from 'node:timers/promises';
import knex from 'knex';
import { Kysely, PostgresDialect } from 'kysely';
import { Client, Pool } from 'pg';
import type { Db } from '../../lib/drivers/pg-boss/boss.js';
import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import {
  createStore,
  database,
  nativeRequire,
  type PgBossStore,
  type StartedBoss,
  startBoss,
} from './fixtures/pg-boss.js';
import { runTransactions } from './fixtures/transactions.js';
import { closing, failure, type Notes, over, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

const record = task('record', (value: number) => value);
const keyed = record.with({ key: 'k' });

/** Of pg-boss, whose own declarations compile with `skipLibCheck` only. */
interface Adapters {
  fromKnex(transaction: object): Db;
  fromKysely(transaction: object): Db;
  fromDrizzle(transaction: object, sql: unknown): Db;
}

// The declarations of Drizzle compile with `skipLibCheck` only.
interface Drizzle {
  transaction(work: (transaction: object) => Promise<void>): Promise<void>;
}
const { sql }: { sql: unknown } = require('drizzle-orm');
const { drizzle }: { drizzle: (pool: Pool) => Drizzle } = require('drizzle-orm/node-postgres');

/** Runs work in a transaction, and rolls it back where that rejects. */
type Begin = (work: (transaction: object) => Promise<void>) => Promise<void>;

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on pg-boss, within a transaction', () => {
  const pool = new Pool({ connectionString: database });
  const knexPool = knex({ client: 'pg', connection: database });
  const kysely = new Kysely<object>({ dialect: new PostgresDialect({ pool }) });
  let store: PgBossStore;
  let boss: StartedBoss;
  let engine: TaskEngine;

  beforeEach(async () => {
    store = createStore();
    boss = await startBoss(store.config);
    engine = pgBoss(boss);
    await engine.ready();
  });

  afterEach(async () => {
    await engine.close();
    await boss.stop();
    await store.remove();
  });

  afterAll(async () => {
    await knexPool.destroy();
    await kysely.destroy(); // And the pool.
  });

  const begin: Begin = async (work) => {
    const client = await pool.connect();
    await client.query('BEGIN');
    try {
      await work(client);
      await client.query('COMMIT');
    } catch (error) {
      await client.query('ROLLBACK');
      throw error;
    } finally {
      client.release();
    }
  };

  const adapters = (): Adapters => nativeRequire('pg-boss') as Adapters;

  const kinds: [string, Begin][] = [
    ["node-postgres's client", begin],
    ['Knex', (work) => knexPool.transaction((transaction) => work(adapters().fromKnex(transaction)))],
    ['Kysely', (work) => kysely.transaction().execute((transaction) => work(adapters().fromKysely(transaction)))],
    ['Drizzle', (work) => drizzle(pool).transaction((transaction) => work(adapters().fromDrizzle(transaction, sql)))],
  ];

  describe.each(kinds)('of %s', (_, run) => {
    it('what was enqueued is there when it commits, and not before', async () => {
      let ids: string[] = [];
      await run(async (transaction) => {
        const { enqueue, enqueueMany } = engine.within(transaction);
        const stored = [await enqueue(record, 1), ...(await enqueueMany(record, [[2], [3]])), await enqueue(keyed, 4)];
        expect(await enqueue(keyed, 5)).toEqual(stored[3]);
        ids = stored.map(({ id }) => id);
        expect(await engine.list()).toEqual([]);
      });
      await engine.work([record]);
      const records = await Promise.all(ids.map((id) => over(engine, id)));
      expect(records.map(({ args }) => args)).toEqual([[1], [2], [3], [4]]);
      expect(await engine.stats()).toMatchObject({ queued: 0, succeeded: 4 });
    });

    it('what was enqueued was never there when it is rolled back', async () => {
      const { id } = await engine.enqueue(keyed, 0);
      const rolledBack = run(async (transaction) => {
        const { enqueue, enqueueMany } = engine.within(transaction);
        await enqueue(record, 1);
        await enqueueMany(record, [[2], [3]]);
        expect(await enqueue(keyed, 4)).toEqual({ id });
        throw new Error('no');
      });
      await expect(rolledBack).rejects.toThrow('no');
      expect(await engine.list()).toMatchObject([{ id, args: [0] }]);
    });

    it("with whileRunning 'again', one more is stored behind the task that runs", async () => {
      const { started, end, ids } = await runsAndEnqueuesAgain(run, async () => {});
      end();
      expect(await started.first(2)).toEqual([1, 3]);
      await over(engine, ids[1]);
    });
  });

  it("with whileRunning 'again', one more also runs where the first one ended without a sight of it", async () => {
    const { started, ids } = await runsAndEnqueuesAgain(begin, async (end, id) => {
      end();
      await over(engine, id);
    });
    expect(await started.first(2)).toEqual([1, 3]);
    await over(engine, ids[1]);
  });

  /** While a task runs, others of its key are enqueued in a transaction. The tasks end when they are told to. */
  async function runsAndEnqueuesAgain(
    run: Begin,
    beforeCommit: (end: () => void, id: string) => Promise<void>,
  ): Promise<{ started: Notes<unknown>; end: () => void; ids: [string, string] }> {
    const { waits, started, end } = waitingTask('waits');
    const again = waits.with({ key: 'w', whileRunning: 'again' });
    await engine.work([again]);
    const first = await engine.enqueue(again, 1);
    await started.first(1);
    let second = first;
    await run(async (transaction) => {
      const { enqueue } = engine.within(transaction);
      second = await enqueue(again, 2);
      expect(second).not.toEqual(first);
      expect(await enqueue(again, 3)).toEqual(second);
      await beforeCommit(end, first.id);
    });
    return { started, end, ids: [first.id, second.id] };
  }

  it('refuses what is no transaction, and says what to give it', () => {
    for (const [value, hint] of [
      [pool, 'a pool'],
      [boss.getDb(), 'a pool'],
      [{}, 'fromKnex'],
      [knexPool, 'fromKnex'],
      [drizzle(pool), 'fromDrizzle'],
    ] as const) {
      const error = expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(hint) });
      expect(() => engine.within(value)).toThrow(error);
    }
    for (const value of [undefined, 'BEGIN']) {
      expect(() => engine.within(value as unknown as object)).toThrow(
        expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
      );
    }
  });

  it('refuses what is not JSON, and what PostgreSQL cannot hold, and the transaction goes on', async () => {
    await begin(async (transaction) => {
      const { enqueue, enqueueMany } = engine.within(transaction);
      expect(await failure(enqueue(record, Number.NaN))).toMatchObject({ code: 'ERR_TASK_NOT_SERIALIZABLE' });
      expect(await failure(enqueueMany(record.with({ timeout: 2e9 }), [[1]]))).toMatchObject({
        code: 'ERR_INVALID_OPTION',
      });
      await enqueue(record, 1);
    });
    expect(await engine.list()).toMatchObject([{ args: [1] }]);
  });

  it('what the transaction fails with arrives as it is', async () => {
    const refused = begin(async (transaction) => {
      if (!(transaction instanceof Client)) throw new TypeError('no client');
      await transaction.query('SET TRANSACTION ISOLATION LEVEL REPEATABLE READ; SELECT 1');
      await engine.enqueue(keyed, 1); // Which the transaction cannot see.
      await engine.within(transaction).enqueue(keyed, 2);
    });
    await expect(refused).rejects.toMatchObject({ code: '40001' });
    const aborted = begin(async (transaction) => {
      if (!(transaction instanceof Client)) throw new TypeError('no client');
      await transaction.query('SELECT 1 / 0').catch(() => {});
      await engine.within(transaction).enqueueMany(record, [[1]]);
    });
    await expect(aborted).rejects.toMatchObject({ code: '25P02' });
  });

  it('a key that an open transaction has taken is waited for', async () => {
    for (const isCommitted of [false, true]) {
      let inside = '';
      let outside: Promise<{ id: string }> | undefined;
      await begin(async (transaction) => {
        inside = (await engine.within(transaction).enqueue(keyed, 1)).id;
        outside = engine.enqueue(keyed, 2);
        await sleep(100);
        if (!isCommitted) throw new Error('no');
      }).catch(() => {});
      const { id = '' } = (await outside) ?? {};
      expect(id === inside).toBe(isCommitted);
      await engine.remove({ name: 'record' });
    }
  });

  it('rows and tasks agree one to one, of transactions half of which are rolled back, with kill -9 in between', async () => {
    const { transactions, orders, tasks } = await runTransactions(store.config, 90, 3);
    expect(transactions).toBeGreaterThanOrEqual(90);
    expect(orders.length).toBeGreaterThan(10);
    expect(tasks).toEqual(orders);
  }, 60_000);

  describe('on a pool of one connection, which pg-boss has from the application', () => {
    const one = new Pool({ connectionString: database, max: 1 });
    const db: Db = { executeSql: (text, values) => one.query(text, values) };

    afterAll(() => one.end());

    async function holding(work: (client: object) => Promise<void>): Promise<void> {
      const client = await one.connect();
      await client.query('BEGIN');
      try {
        await work(client);
        await client.query('COMMIT');
      } finally {
        client.release();
      }
    }

    it('needs no second one, also with a key', async () => {
      const own = await startBoss({ schema: store.config.schema, db });
      const single = closing(pgBoss(own));
      await single.ready();
      await holding(async (client) => {
        const { enqueue, enqueueMany } = single.within(client);
        const first = await enqueue(keyed.with({ whileRunning: 'again' }), 1);
        expect(await enqueue(keyed, 2)).toEqual(first);
        expect(await enqueueMany(record, [[3], [4]])).toHaveLength(2);
      });
      expect(await single.stats()).toMatchObject({ queued: 3 });
      await single.close();
      await own.stop();
    });

    it('rejects at once before anything has made the queue, and says so', async () => {
      const own = await startBoss({ schema: store.config.schema, db });
      const single = closing(pgBoss(own));
      await holding(async (client) => {
        const { enqueue, enqueueMany } = single.within(client);
        const error = { code: 'ERR_ENGINE_UNAVAILABLE', message: expect.stringContaining('await engine.ready()') };
        expect(await failure(enqueue(record, 1))).toMatchObject(error);
        expect(await failure(enqueueMany(record, [[1]]))).toMatchObject(error);
      });
      await single.get('00000000-0000-7000-8000-000000000000'); // Or any other call.
      await holding(async (client) => void (await single.within(client).enqueue(record, 1)));
      await single.close();
      await own.stop();
    });
  });
});
