// What people do with tasks on pg-boss, where it meets dying workers, several processes and other transactions.

import type { ChildProcess } from 'node:child_process';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { isDeepStrictEqual } from 'node:util';
import { Client } from 'pg';
import type { Db } from '../../lib/drivers/pg-boss/boss.js';
import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { timeOfId } from '../../lib/engine/id.js';
import { currentTask, type TaskEngine, type TaskState, task } from '../../lib/index.js';
import { createStore, database, type PgBossStore, queue, type StartedBoss, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { kill, over, reaches } from './fixtures/suite-tools.js';
import { failure, retries, startWorkerProcess, waitingTask } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22, server: ['PostgreSQL', 5432] }, 'on pg-boss, operations', () => {
  const client = new Client(database);
  let store: PgBossStore;
  let boss: StartedBoss;
  let engine: TaskEngine;

  beforeAll(() => client.connect());
  afterAll(() => client.end());

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

  async function query<Row>(text: string, values: unknown[] = []): Promise<Row[]> {
    const { rows } = await client.query(text.replaceAll('SCHEMA', store.config.schema), values);
    return rows as Row[];
  }

  const startProcess = (): Promise<ChildProcess> =>
    startWorkerProcess(join(__dirname, 'fixtures/pg-boss.ts'), store.config);

  const reachesState = (id: string, state: TaskState): Promise<unknown> =>
    reaches(engine, id, (each) => each.state === state);

  describe('of a worker that dies', () => {
    // Its death is found sooner.
    beforeEach(() => query('UPDATE SCHEMA.queue SET heartbeat_seconds = 1'));

    it('a task that was told to stop does not run again, and frees its key', async () => {
      const hangs = { name: 'conformance.hang', args: [], key: 'k', retries: retries(3) };
      const { id } = await send(engine, hangs);
      const child = await startProcess();
      await reachesState(id, 'running');
      child.kill('SIGSTOP'); // It cannot hear of it any more.
      expect(await engine.cancel(id)).toBe('signalled');
      await kill(child);
      await startProcess();
      expect(await over(engine, id)).toMatchObject({ state: 'cancelled', attempts: 1 });
      expect((await send(engine, hangs)).id).not.toBe(id);
    });

    it('the one more that stands behind its task runs after that', async () => {
      const hangs = { name: 'conformance.hang', args: [1], key: 'k', whileRunning: 'again' } as const;
      const first = await send(engine, hangs);
      const child = await startProcess();
      await reachesState(first.id, 'running');
      const second = await send(engine, { ...hangs, name: 'conformance.record', args: [2] });
      expect(second.id).not.toBe(first.id);
      await kill(child);
      await startProcess();
      await reaches(engine, first.id, ({ state, attempts }) => state === 'running' && attempts === 2);
      expect(await engine.get(second.id)).toMatchObject({ state: 'queued', attempts: 0, key: 'k', args: [2] });
      await engine.cancel(first.id);
      expect(await over(engine, first.id)).toMatchObject({ state: 'cancelled', attempts: 2 });
      expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded', attempts: 1 });
    });

    it('the one more runs also where the end of the first was the last that it wrote', async () => {
      const again = { name: 'conformance.record', args: [], key: 'k', whileRunning: 'again' } as const;
      const { waits, started } = waitingTask(again.name);
      const worker = await engine.work([waits]);
      const first = await send(engine, again);
      await started.first(1);
      const second = await send(engine, again);
      await worker.close({ timeout: 0 });
      await query("UPDATE SCHEMA.job SET state = 'completed', completed_on = now() WHERE id = $1", [first.id]);
      await startProcess();
      expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded' });
    });
  });

  it('one more behind a task has the newest arguments, name and delay, is not due, and cannot be promoted', async () => {
    const { waits, started, end } = waitingTask('a');
    await engine.work([waits, task('b', () => 'b')]);
    const first = await send(engine, { name: 'a', args: [1], key: 'k' });
    await started.first(1);
    const again = { key: 'k', whileRunning: 'again', delay: 3_600_000 } as const;
    const second = await send(engine, { name: 'a', args: [2], ...again });
    expect(await send(engine, { name: 'b', args: [3], ...again, priority: 5 })).toEqual(second);
    expect(await engine.stats()).toMatchObject({ queued: 1, due: 0, running: 1 });
    const behind = await engine.get(second.id);
    expect(behind).toMatchObject({ name: 'b', args: [3], key: 'k', priority: 5, runAt: expect.any(Date) });
    expect(Math.abs(Number(behind?.runAt) - Date.now() - 3_600_000)).toBeLessThan(10_000);
    expect(await engine.promote(second.id)).toBe(false);
    end();
    await over(engine, first.id);
    expect(await engine.get(second.id)).toMatchObject({ state: 'queued', runAt: behind?.runAt });
    while (!(await engine.promote(second.id))) await sleep(5); // It is queued in a moment.
    expect(await over(engine, second.id)).toMatchObject({ result: 'b' });
  });

  it('one more runs where the task before it is cancelled while it waits for its retry', async () => {
    const { waits, started } = waitingTask('a');
    const worker = await engine.work([waits]);
    const again = { name: 'a', args: [], key: 'k', whileRunning: 'again' } as const;
    const first = await send(engine, again);
    await started.first(1);
    const second = await send(engine, again);
    await worker.close({ timeout: 0 });
    expect(await engine.get(first.id)).toMatchObject({ state: 'queued' });
    expect(await engine.cancel(first.id)).toBe('cancelled');
    await engine.work([task('a', () => {})]);
    expect(await over(engine, second.id)).toMatchObject({ state: 'succeeded' });
  });

  describe('at the moment at which the task that runs ends', () => {
    const again = { name: 'a', key: 'k', whileRunning: 'again', delay: 3_600_000 } as const;

    it('a second call that has seen it run finds the one more that is queued', async () => {
      const { waits, started, end } = waitingTask('a');
      await engine.work([waits]);
      const first = await send(engine, { name: 'a', args: [1], key: 'k' });
      await started.first(1);
      const seen = holdBack(boss, { after: (text) => text.includes('AS is_running') });
      const late = send(engine, { ...again, args: [2] });
      await seen.reached;
      const second = await send(engine, { ...again, args: [3] });
      end();
      await over(engine, first.id);
      const isQueued = "SELECT FROM SCHEMA.job WHERE id = $1 AND singleton_key NOT LIKE 'behind %'";
      while ((await query(isQueued, [second.id])).length === 0) await sleep(5);
      seen.letGo();
      expect(await late).toEqual(second);
      expect(await engine.stats()).toMatchObject({ queued: 1, running: 0 });
    });

    it('no other one takes the key before the one more is queued', async () => {
      const { waits, started, end } = waitingTask('a');
      await engine.work([waits]);
      const first = await send(engine, { name: 'a', args: [1], key: 'k' });
      await started.first(1);
      const second = await send(engine, { ...again, args: [2] });
      const released = holdBack(boss, {
        before: (text, values) => text.includes('behind SET singleton_key') && values[1] !== null,
      });
      end();
      await released.reached;
      const late = send(engine, { name: 'a', args: [3], key: 'k' });
      await sleep(300); // Nothing of it may be seen: it waits in PostgreSQL.
      released.letGo();
      expect(await late).toEqual(second);
      expect(await over(engine, first.id)).toMatchObject({ state: 'succeeded' });
      expect(await engine.stats()).toMatchObject({ queued: 1, running: 0 });
    });
  });

  it('a slot stores one more behind a task that runs, on the only connection of a pool', async () => {
    const narrow = await startBoss({ ...store.config, max: 1 });
    try {
      const other = pgBoss(narrow);
      const { waits, started, end } = waitingTask('a');
      await other.work([waits]);
      const first = await send(engine, { name: 'a', args: [], key: 'k' });
      await started.first(1);
      await other.schedule(
        's',
        { cron: '* * * * * *' },
        task('a').with({ key: 'k', whileRunning: 'again', delay: 60_000 }),
      );
      while ((await engine.stats()).queued === 0) await sleep(50);
      await other.unschedule('s');
      end();
      await over(engine, first.id);
      expect(await engine.stats()).toMatchObject({ queued: 1, running: 0, succeeded: 1 });
      await other.close();
    } finally {
      await narrow.stop();
    }
  });

  it('a task that was taken, given back unbegun and then cancelled has had no attempt', async () => {
    await engine.work([task('other', () => {})], { onError: () => {} });
    const { id } = await send(engine, { name: 'a', args: [] });
    while ((await query("SELECT FROM SCHEMA.job WHERE id = $1 AND state = 'retry'", [id])).length === 0) await sleep(5);
    expect(await engine.cancel(id)).toBe('cancelled');
    const cancelled = await engine.get(id);
    expect(cancelled).toMatchObject({ state: 'cancelled', attempts: 0 });
    expect(cancelled).not.toHaveProperty('startedAt');
  });

  it('thousands that have failed are retried, without those whose key is live', async () => {
    const many = task('a');
    await engine.enqueueMany(
      many,
      Array.from({ length: 2500 }, () => []),
    );
    const keyed = many.with({ key: 'k' });
    await engine.enqueue(keyed);
    await query("UPDATE SCHEMA.job SET state = 'failed', started_on = now(), completed_on = now()");
    const live = await engine.enqueue(keyed);
    expect(await engine.retry({ state: 'failed' })).toBe(2500);
    expect(await engine.stats()).toMatchObject({ queued: 2501, failed: 1 });
    await engine.remove(live.id);
    expect(await engine.retry({ name: 'a' })).toBe(1);
    expect(await engine.remove({ name: 'a' })).toBe(2501);
    expect(await engine.stats()).toMatchObject({ queued: 0, failed: 0 });
  });

  it('of those to be retried, one whose key a transaction takes at this moment is skipped, and the others are not', async () => {
    const keyed = task('a', { key: 'k' });
    const ids = [await engine.enqueue(keyed), await engine.enqueue(task('a'))].map(({ id }) => id);
    for (const id of ids) await engine.cancel(id);
    await query('BEGIN');
    await engine.within(client).enqueue(keyed);
    const retried = engine.retry({ state: 'cancelled' });
    await sleep(200);
    await query('COMMIT');
    expect(await retried).toBe(1);
    const records = await Promise.all(ids.map((id) => engine.get(id)));
    expect(records.map((record) => record?.state)).toEqual(['cancelled', 'queued']);
  });

  describe('where PostgreSQL ends a statement in a deadlock', () => {
    /** The first of those that write such a row ends in one. */
    async function endFirst(when: 'INSERT' | 'UPDATE', condition: string): Promise<void> {
      await query(`CREATE SEQUENCE SCHEMA.written;
        CREATE FUNCTION SCHEMA.deadlock() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
          IF nextval('SCHEMA.written') = 1 THEN RAISE 'deadlock detected' USING ERRCODE = '40P01'; END IF;
          RETURN NEW;
        END $$;
        CREATE TRIGGER deadlock BEFORE ${when} ON SCHEMA.job FOR EACH ROW WHEN (${condition})
          EXECUTE FUNCTION SCHEMA.deadlock()`);
    }

    const written = async (): Promise<unknown> => (await query('SELECT last_value, is_called FROM SCHEMA.written'))[0];

    it('with the tasks of another, those that are to be retried are retried one by one', async () => {
      await engine.enqueueMany(task('a'), [[], [], []]);
      await query("UPDATE SCHEMA.job SET state = 'cancelled', completed_on = now()");
      await endFirst('UPDATE', "NEW.state = 'created'");
      expect(await engine.retry({ state: 'cancelled' })).toBe(3);
      expect(await engine.stats()).toMatchObject({ queued: 3, cancelled: 0 });
    });

    it('the one more behind a task that runs is stored all the same', async () => {
      const keyed = task('a', { key: 'k', whileRunning: 'again' });
      await engine.enqueue(keyed);
      await query("UPDATE SCHEMA.job SET state = 'active', started_on = now()");
      await endFirst('INSERT', "starts_with(NEW.singleton_key, 'behind ')");
      const { id } = await engine.enqueue(keyed);
      expect(await engine.get(id)).toMatchObject({ state: 'queued', key: 'k' });
      expect(await written()).toEqual({ last_value: '2', is_called: true });
    });

    // It waits for a beat, which comes every 5 s.
    it('a beat is not an error', async () => {
      const { waits, started, end } = waitingTask('a');
      const errors: unknown[] = [];
      const worker = await engine.work([waits], { logger: { error: (context) => errors.push(context) } });
      await endFirst('UPDATE', "OLD.state = 'active' AND NEW.heartbeat_on <> OLD.heartbeat_on");
      const { id } = await engine.enqueue(waits, 1);
      await started.first(1);
      while (!isDeepStrictEqual(await written(), { last_value: '1', is_called: true })) await sleep(50);
      end();
      await over(engine, id);
      await worker.close();
      expect(errors).toEqual([]);
    });
  });

  it('a task that has failed after deaths of its workers is no suspect when it is retried', async () => {
    const { id } = await send(engine, { name: 'a', args: [] });
    await query(
      `UPDATE SCHEMA.job SET state = 'failed', started_on = now(), completed_on = now(), retry_count = 6,
       data = data || '{"alone": 2, "unused": 1}' WHERE id = $1`,
      [id],
    );
    expect(await engine.retry(id)).toBe(1);
    await engine.work([task('a', () => currentTask()?.attempt)]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 7, result: 7 });
    const [job] = await boss.findJobs(queue, { id });
    expect(job?.data).toMatchObject({ failed: 0, alone: 0, dropped: 6, unused: 1 });
  });

  it('a task that was given up can be retried, and its attempts go on counting', async () => {
    const { id } = await send(engine, { name: 'a', args: [] });
    await query(
      `UPDATE SCHEMA.job SET state = 'retry', started_on = now(), retry_count = 4, data = data || '{"alone": 2}'
       WHERE id = $1`,
      [id],
    );
    await engine.work([task('a', () => 'well')], { onError: () => {} });
    expect(await over(engine, id)).toMatchObject({ state: 'failed', attempts: 5 });
    await engine.retry(id);
    await reachesState(id, 'succeeded');
    expect(await engine.get(id)).toMatchObject({ attempts: 6, result: 'well' });
  });

  it('progress is that of the attempt that runs, also after the task was taken and not begun', async () => {
    const { id } = await send(engine, { name: 'a', args: [], retries: retries(1) });
    await query(
      `UPDATE SCHEMA.job SET state = 'retry', started_on = now(), retry_count = 1, data = data || '{"unused": 2}'`,
    );
    const { waits, started, end } = waitingTask('waits');
    const reports = task('a', async () => {
      currentTask()?.progress({ attempt: currentTask()?.attempt });
      if (currentTask()?.attempt === 1) throw new Error('not yet');
      await waits(1);
    });
    await engine.work([reports], { onError: () => {} });
    await started.first(1);
    const running = await reaches(engine, id, ({ progress }) => JSON.stringify(progress) === '{"attempt":2}');
    expect(running).toMatchObject({ state: 'running', attempts: 2, error: { message: 'not yet' } });
    end();
    const done = await over(engine, id);
    expect(done).toMatchObject({ state: 'succeeded', progress: { attempt: 2 } });
    expect(done).not.toHaveProperty('error');
  });

  it('what somebody else has stored in a job does no harm', async () => {
    const made = [null, [1], { name: 'a' }, { name: 'a', args: '[', unused: 'x', key: 7 }, { name: 'a', args: {} }];
    for (const data of made) await boss.send(queue, data as object, { singletonKey: JSON.stringify(data) });
    expect(await engine.list()).toHaveLength(5);
    const worker = await engine.work([task('a', () => {})], { onError: () => {} });
    for (const { id } of await engine.list()) expect(await over(engine, id)).toMatchObject({ state: 'failed' });
    await worker.close();
    expect(await engine.retry({ state: 'failed' })).toBe(3); // Those whose data is an object.
    expect(await engine.remove({ state: 'queued' })).toBe(3);
    expect(await engine.stats()).toMatchObject({ failed: 2 });
  });

  it('a schedule enqueues one task a slot with three processes that are killed one after the other', async () => {
    const ticks = task('conformance.record');
    const children = [await startProcess(), await startProcess(), await startProcess()];
    await engine.schedule('every second', { cron: '* * * * * *' }, ticks);
    for (let round = 0; round < 5; round++) {
      await sleep(1500);
      const [child] = children.splice(0, 1, await startProcess());
      if (child !== undefined) await kill(child);
      children.push(...children.splice(0, 1));
    }
    await engine.unschedule('every second');
    const slots = (await engine.list({ limit: 1000 })).map(({ id }) => Number(timeOfId(id)) / 1000).sort();
    const [first = 0] = slots;
    expect(slots.length).toBeGreaterThan(5);
    expect(slots).toEqual(slots.map((_, index) => first + index));
  }, 60_000);

  it('a name of a schedule may be any text', async () => {
    const names = ['nul \0', 'whole \ud83d\ude00', 'quote \' " \\', 'ž'.repeat(5000)];
    for (const name of names) await engine.schedule(name, { cron: '@yearly' }, task('a'));
    for (const name of names) await engine.schedule(name, { cron: '@daily' }, task('a'));
    const found = await engine.schedules();
    expect(found.map(({ name }) => name).sort()).toEqual([...names].sort());
    expect(new Set(found.map(({ cron }) => cron))).toEqual(new Set(['@daily']));
    for (const name of names) expect(await engine.unschedule(name)).toBe(true);
    expect(await engine.schedules()).toEqual([]);
  });

  it('a worker that has no slot free is healthy', async () => {
    const { waits, started, end } = waitingTask('waits');
    const worker = await engine.work([waits], { concurrency: 1 });
    await engine.enqueueMany(waits, [[1], [2]]);
    await started.first(1);
    await sleep(11_000);
    expect(worker.health()).toMatchObject({ healthy: true, running: 1 });
    end();
  });

  it('ready() rejects where PostgreSQL cannot be asked', async () => {
    await boss.stop();
    expect(await failure(engine.ready())).toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
  });
});

type Statement = (text: string, values: unknown[]) => boolean;

/** Holds back the first statement of pg-boss's pool that is meant, before it is sent or after it has been answered. */
function holdBack(boss: StartedBoss, { before, after }: { before?: Statement; after?: Statement }) {
  let letGo = (): void => {};
  let reach = (): void => {};
  const gone = new Promise<void>((resolve) => {
    letGo = resolve;
  });
  const reached = new Promise<void>((resolve) => {
    reach = resolve;
  });
  let isHeld = false;
  const hold = async (isMeant: Statement | undefined, text: string, values: unknown[]): Promise<void> => {
    if (isHeld || isMeant?.(text, values) !== true) return;
    isHeld = true;
    reach();
    await gone;
  };
  const held = ({ executeSql, ...rest }: Db): Db => ({
    ...rest,
    async executeSql(text, values = []) {
      await hold(before, text, values);
      const answer = await executeSql(text, values);
      await hold(after, text, values);
      return answer;
    },
  });
  const db = boss.getDb();
  const executeSql = db.executeSql.bind(db);
  const withTransaction = db.withTransaction?.bind(db);
  Object.assign(db, held({ executeSql }), {
    withTransaction: <T>(call: (db: Db) => Promise<T>) => withTransaction?.((own) => call(held(own))),
  });
  return { reached, letGo };
}
