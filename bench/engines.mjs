// Measures: how many tasks a second are enqueued, and how many no-op tasks a second a worker ends, on each engine. On sqlite
// also how long stats() and a page of list() take in a file with 1,200,000 tasks: the event loop is held for as long.
// Against: for bullmq and pgBoss the same done with the bare library; for sqlite itself, one enqueue at a time against
// 32, and against 32 rows a commit by better-sqlite3.
// Fair: the bare library gets the same server, the same argument, the same number of calls under way and the same
// options: finished jobs kept for the same time, an id and a priority as ours have. BullMQ's own Worker runs with the
// same concurrency. enqueue() gives up after 4.5 s: the floor is the bare library with a timer for each call. pg-boss's
// own work() waits for its next poll after each batch, so that it is no match: the bare pg-boss here is a loop of
// fetch() and complete(), its fastest way. Rounds are interleaved in one process, in alternating order.

import { randomUUID } from 'node:crypto';
import { mkdtempSync, rmSync } from 'node:fs';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { task } from 'express-background-tasks';
import { order, rowOf } from './statistics.mjs';

const rounds = 11;
const underWay = 32;
const concurrency = 10;
const name = 'no-op';
const manyNames = Array.from({ length: 1000 }, (_, number) => `no-op ${number}`);
const args = [{ to: 'ada@example.com', text: 'some notification' }];
const week = 7 * 24 * 60 * 60;

export default async function engines() {
  if (Number.parseInt(process.versions.node, 10) < 22) {
    return skipped('better-sqlite3 13 and pg-boss 12 need Node.js 22 or later');
  }
  return [...(await benchSqlite()), ...(await benchBullmq()), ...(await benchPgBoss())];
}

function skipped(reason) {
  console.error(`engines: skipped: ${reason}`);
  return [];
}

async function benchSqlite() {
  const { sqlite } = await import('express-background-tasks/sqlite');
  const { default: Database } = await import('better-sqlite3');
  const directory = mkdtempSync(join(tmpdir(), 'bench-sqlite-'));
  const engine = sqlite({ path: join(directory, 'tasks.db') });
  const bare = new Database(join(directory, 'tasks.db'));
  bare.pragma('synchronous = FULL');
  const rates = await interleave({
    'one at a time': () => enqueueRate(engine, 300, 1),
    [`${underWay} at once`]: () => enqueueRate(engine, 10_000),
    floor: () => insertRate(bare, 10_000),
    many: () => enqueueManyRate(engine),
  });
  bare.close();
  await engine.close();

  const worked = { one: [], many: [], other: [] };
  const workedRate = async (options, names) => {
    const other = sqlite(options);
    const enqueued = await enqueueRate(other, 10_000, underWay, names);
    const rate = await workRate(other, 10_000, names);
    await other.close();
    return [enqueued, rate];
  };
  const onBetterSqlite3 = async (path) => {
    const database = new Database(path);
    database.pragma('journal_mode = WAL');
    database.pragma('synchronous = FULL');
    const worked = await workedRate({ database }, [name]);
    database.close();
    return worked;
  };
  for (let round = 0; round < rounds; round++) {
    worked.one.push(await workedRate({ path: join(directory, `${round}.db`) }, [name]));
    worked.many.push(await workedRate({ path: join(directory, `${round}, many names.db`) }, manyNames));
    worked.other.push(await onBetterSqlite3(join(directory, `${round}, better-sqlite3.db`)));
  }
  const looks = await looksAtMillions(sqlite, Database, join(directory, 'millions.db'));
  rmSync(directory, { recursive: true });
  const ratios = (name) => rates[name].map((rate, round) => rate / rates['one at a time'][round]);
  return [
    compared('enqueue on sqlite, 32 at once', 'one at a time', ratios(`${underWay} at once`), 5),
    compared('the floor: better-sqlite3, 32 rows a commit', 'enqueue, one at a time', ratios('floor')),
    absolute('enqueue on sqlite, one at a time', rates['one at a time']),
    absolute('enqueue on sqlite, 32 at once', rates[`${underWay} at once`]),
    absolute('enqueueMany on sqlite, 1,000 a call', rates.many, 50_000),
    absolute('no-op tasks worked on sqlite', workedOf(worked.one), 5000),
    absolute('no-op tasks worked on sqlite, of 1,000 names', workedOf(worked.many), 10_000),
    compared('enqueue on better-sqlite3, 32 at once', 'node:sqlite', ratiosOf(worked, 0)),
    compared('no-op tasks worked on better-sqlite3', 'node:sqlite', ratiosOf(worked, 1)),
    ...looks,
  ];
}

function workedOf(rounds) {
  return rounds.map(([, worked]) => worked);
}

/** Of the two libraries, round by round. */
function ratiosOf({ one, other }, index) {
  return other.map((rates, round) => rates[index] / one[round][index]);
}

/** A million tasks that are over, of all three states, and 200,000 that are queued. */
async function looksAtMillions(sqlite, Database, path) {
  const engine = sqlite({ path });
  const bare = new Database(path);
  const insert = bare.prepare(`
    WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 1200000)
    INSERT INTO background_tasks (id, name, args, priority, state, run_at, attempts, enqueued_at, started_at, finished_at)
    SELECT printf('00000000-0000-4000-8000-%012x', n), '${name}', @args, 0,
      CASE WHEN n > 1000000 THEN 'queued' WHEN n % 100 = 0 THEN 'failed' WHEN n % 100 = 1 THEN 'cancelled' ELSE 'succeeded' END,
      @now, n <= 1000000, @now, iif(n > 1000000, NULL, @now), iif(n > 1000000, NULL, @now) FROM numbers`);
  insert.run({ args: JSON.stringify(args), now: Date.now() });
  bare.close();
  const looks = {
    'stats()': () => engine.stats(),
    'list()': () => engine.list(),
    'list({ state }), page 100': () => engine.list({ state: 'failed', offset: 5000 }),
  };
  const rows = [];
  for (const [what, look] of Object.entries(looks)) {
    const values = [];
    for (let round = 0; round < rounds; round++) {
      const start = performance.now();
      await look();
      values.push(performance.now() - start);
    }
    rows.push(rowOf({ what: `${what} on sqlite, 1,200,000 tasks`, unit: 'ms', goal: '≤ 20', values }));
  }
  await engine.close();
  return rows;
}

/** The rows of {@link enqueueRate}, so many a commit, without a promise. */
function insertRate(database, count) {
  const row = '(id, name, args, priority, state, run_at, enqueued_at)';
  const insert = database.prepare(`INSERT INTO background_tasks ${row} VALUES (?, ?, ?, 0, 'queued', ?, ?)`);
  const insertMany = database.transaction(() => {
    for (let number = 0; number < underWay; number++) {
      insert.run(randomUUID(), name, JSON.stringify(args), Date.now(), Date.now());
    }
  });
  const start = performance.now();
  for (let left = count; left > 0; left -= underWay) insertMany.immediate();
  return count / ((performance.now() - start) / 1000);
}

async function benchBullmq() {
  if (!(await listens(6379))) return skipped('no Redis listens on 127.0.0.1:6379');
  const { bullmq } = await import('express-background-tasks/bullmq');
  const { Queue, Worker } = await import('bullmq');
  const connection = { host: '127.0.0.1', port: 6379 };
  const count = 20_000;
  const remove = async (queue) => {
    await queue.obliterate({ force: true });
    await queue.close();
  };
  const bare = async (limit) => {
    const queue = new Queue(`bench-${randomUUID()}`, { connection });
    const options = { priority: 2 ** 20, removeOnComplete: { age: week }, removeOnFail: { age: week } };
    const data = { args: JSON.stringify(args) };
    const add = () => queue.add(name, data, { ...options, jobId: randomUUID() });
    const added = await rateOf(count, underWay, () => limit(add));
    const worked = await timed(count, (ended) => {
      const worker = new Worker(queue.name, async () => ended(), { connection, concurrency });
      return () => worker.close();
    });
    await remove(queue);
    return [added, worked];
  };
  const rates = await interleave({
    async ours() {
      const queue = `bench-${randomUUID()}`;
      const engine = bullmq({ connection, queue });
      const rate = [await enqueueRate(engine, count), await workRate(engine, count), await enqueueManyRate(engine)];
      await engine.close();
      await remove(new Queue(queue, { connection }));
      return rate;
    },
    bare: () => bare((add) => add()),
    floor: () => bare(withDeadline),
  });
  return [...adapterRows('bullmq', 'BullMQ', rates), manyRow('bullmq', rates)];
}

async function benchPgBoss() {
  if (!(await listens(5432))) return skipped('no PostgreSQL listens on 127.0.0.1:5432');
  const { pgBoss } = await import('express-background-tasks/pg-boss');
  const { PgBoss } = await import('pg-boss');
  const { Client } = await import('pg');
  const { BENCH_POSTGRES: connectionString = 'postgres://postgres@127.0.0.1:5432/test' } = process.env;
  const schema = 'bench_background_tasks';
  const client = new Client(connectionString);
  await client.connect();
  const count = 2000;
  const withBoss = async (measure) => {
    const boss = await new PgBoss({ connectionString, schema, schedule: false, supervise: false }).start();
    const rate = await measure(boss);
    await boss.stop({ graceful: false });
    await client.query(`DROP SCHEMA ${schema} CASCADE`);
    return rate;
  };
  const ours = async (boss) => {
    const engine = pgBoss(boss);
    const rate = [await enqueueRate(engine, count), await workRate(engine, count), await enqueueManyRate(engine)];
    await engine.close();
    return rate;
  };
  const rates = await interleave({
    ours: () => withBoss(ours),
    bare: () => withBoss((boss) => barePgBoss(boss, count, (send) => send())),
    floor: () => withBoss((boss) => barePgBoss(boss, count, withDeadline)),
  });
  await client.end();
  return [...adapterRows('pgBoss', 'pg-boss', rates), manyRow('pgBoss', rates)];
}

async function barePgBoss(boss, count, limit) {
  // As our queue: one live job per key, and a dead worker is found by its heartbeat.
  await boss.createQueue(name, { policy: 'exclusive', heartbeatSeconds: 15, retryLimit: 5, deleteAfterSeconds: week });
  const data = { name, args: JSON.stringify(args) };
  const send = () => {
    const id = randomUUID();
    return boss.send(name, data, { id, singletonKey: id, priority: 0, group: { id: name } });
  };
  const sent = await rateOf(count, underWay, () => limit(send));
  const work = await timed(count, async (ended) => {
    let jobs = await boss.fetch(name, { batchSize: concurrency });
    while (jobs.length > 0) {
      const ids = jobs.map(({ id }) => id);
      await boss.complete(name, ids);
      ids.forEach(ended);
      jobs = await boss.fetch(name, { batchSize: concurrency });
    }
    return () => {};
  });
  return [sent, work];
}

/** The smallest program that does not wait for ever for a server that is away. */
function withDeadline(call) {
  return new Promise((resolve, reject) => {
    const timer = setTimeout(() => reject(new Error('late')), 4500);
    call()
      .then(resolve, reject)
      .finally(() => clearTimeout(timer));
  });
}

function adapterRows(engine, library, { ours, bare, floor }) {
  const ratios = (index, to = ours) => to.map((rates, round) => rates[index] / bare[round][index]);
  return [
    compared(`enqueue on ${engine}, 32 at once`, `bare ${library}`, ratios(0), 0.95),
    compared(`the floor: ${library}, each call with a time limit`, `bare ${library}`, ratios(0, floor)),
    absolute(
      `enqueue on ${engine}, 32 at once`,
      ours.map(([enqueue]) => enqueue),
    ),
    compared(`no-op tasks worked on ${engine}`, `bare ${library}`, ratios(1), 0.95),
    absolute(
      `no-op tasks worked on ${engine}`,
      ours.map(([, work]) => work),
    ),
  ];
}

function manyRow(engine, { ours }) {
  const rates = ours.map(([, , many]) => many);
  return absolute(`enqueueMany on ${engine}, 1,000 a call`, rates, 10_000);
}

function compared(what, against, values, goal) {
  return rowOf({ what, against, goal: goal && `≥ ${goal}`, values });
}

function absolute(what, values, goal) {
  return rowOf({ what, unit: 'per second', goal: goal && `≥ ${goal}`, values });
}

/** Once for warmth, then so many rounds, each contender once per round. */
async function interleave(contenders) {
  const names = Object.keys(contenders);
  const results = Object.fromEntries(names.map((name) => [name, []]));
  for (const name of names) await contenders[name]();
  for (let round = 0; round < rounds; round++) {
    for (const index of order(names.length, round)) results[names[index]].push(await contenders[names[index]]());
  }
  return results;
}

function enqueueRate(engine, count, atOnce = underWay, names = [name]) {
  const remotes = names.map((name) => task(name));
  let next = 0;
  return rateOf(count, atOnce, () => engine.enqueue(remotes[next++ % remotes.length], ...args));
}

/** Tasks per second, a thousand a call, one call after the other. */
async function enqueueManyRate(engine) {
  const argLists = Array.from({ length: 1000 }, () => args);
  return 1000 * (await rateOf(20, 1, () => engine.enqueueMany(task(name), argLists)));
}

/** Calls per second, with so many under way. */
async function rateOf(count, atOnce, call) {
  let left = count;
  const start = performance.now();
  const client = async () => {
    while (left-- > 0) await call();
  };
  await Promise.all(Array.from({ length: atOnce }, client));
  return count / ((performance.now() - start) / 1000);
}

function workRate(engine, count, names = [name]) {
  return timed(count, async (ended) => {
    const tasks = names.map((name) => task(name, async () => ended()));
    const worker = await engine.work(tasks, { concurrency });
    return () => worker.close();
  });
}

/** Tasks per second, from the start of a worker to the end of the last of the tasks that wait. */
async function timed(count, startWorker) {
  let left = count;
  let allEnded;
  const end = new Promise((resolve) => {
    allEnded = resolve;
  });
  const start = performance.now();
  const stop = await startWorker(() => {
    left--;
    if (left === 0) allEnded();
  });
  await end;
  const rate = count / ((performance.now() - start) / 1000);
  await stop();
  return rate;
}

function listens(port) {
  return new Promise((resolve) => {
    const socket = connect(port, '127.0.0.1');
    socket.on('connect', () => resolve(true)).on('error', () => resolve(false));
    socket.on('connect', () => socket.destroy());
  });
}
