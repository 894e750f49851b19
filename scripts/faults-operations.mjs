// node scripts/faults-operations.mjs [sqlite | postgres | redis] [seconds, default 120]: three workers that are restarted one after the
// other, half of them with -9, while tasks are enqueued, cancelled, fail and are retried, and a schedule comes every second. What was
// acknowledged must run, what was cancelled must not, and each slot must have enqueued one task.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, existsSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
require('../__tests__/fixtures/typescript.cjs');
const { currentTask, task } = require('../lib/index.ts');

const fixture = (name) => fileURLToPath(new URL(`../__tests__/drivers/fixtures/${name}.ts`, import.meta.url));
const retries = { limit: 1, minDelay: 100, jitter: false };
const work = task('faults.work');
const flaky = task('faults.flaky', { retries });
const broken = task('faults.broken');
const tick = task('faults.tick');

const [, , first = 'sqlite', second = '120'] = process.argv;
if (first === 'worker') await beWorker(JSON.parse(second));
else process.exitCode = await run(first, Number(second));

async function run(name, seconds) {
  const directory = mkdtempSync(join(tmpdir(), 'faults-'));
  const { module, config, remove } = await subjectOf(name, directory);
  const subject = { module, config, log: join(directory, 'ran.log') };
  const engine = await require(module).createEngine(config);
  const tally = { acknowledged: [], cancelled: new Set(), signalled: new Set(), retried: 0 };
  const workers = [];
  for (let count = 0; count < 3; count++) workers.push(await startWorker(subject));
  await engine.schedule('tick', { cron: '* * * * * *' }, tick);
  const begin = Date.now();
  console.log(`${name}, ${seconds} s, Node ${process.versions.node}`);
  const restarting = restart(workers, subject, begin + seconds * 1000);
  while (Date.now() < begin + seconds * 1000) {
    await load(engine, tally);
    await sleep(20);
  }
  await restarting;
  await engine.unschedule('tick');
  const end = Date.now();
  await settled(engine);
  const failures = await verdict(engine, subject, tally, begin, end);
  await Promise.all(workers.map((worker) => stop(worker, 'SIGKILL')));
  await engine.close();
  await remove();
  rmSync(directory, { recursive: true });
  return failures === 0 ? 0 : 1;
}

async function subjectOf(name, directory) {
  if (name === 'sqlite') {
    const config = { path: join(directory, 'tasks.db'), lease: 1000, pollInterval: 100 };
    return { module: fixture('sqlite'), config, remove: () => {} };
  }
  const { ownRedis, ownPostgres } = require('../__tests__/drivers/fixtures/own-server.ts');
  const server = await (name === 'redis' ? ownRedis() : ownPostgres());
  await server.start();
  const remove = () => server.remove();
  if (name === 'redis')
    return { module: fixture('bullmq'), config: { connection: { host: '127.0.0.1', port: server.port } }, remove };
  const config = { connectionString: `postgres://postgres@127.0.0.1:${server.port}/postgres`, schema: 'tasks' };
  return { module: fixture('pg-boss'), config, remove };
}

/** One worker after the other, killed or told to close. */
async function restart(workers, subject, until) {
  for (let round = 0; Date.now() < until; round++) {
    await sleep(1000 + Math.random() * 1000);
    const worker = workers.shift();
    await stop(worker, round % 2 === 0 ? 'SIGKILL' : 'SIGTERM');
    workers.push(await startWorker(subject));
  }
}

async function load(engine, { acknowledged, cancelled, signalled }) {
  const number = acknowledged.length;
  const kind = [work, flaky, work, broken][number % 4];
  const { id } = await engine.enqueue(kind.with(number % 8 === 2 ? { delay: 500 } : {}), number);
  acknowledged.push(id);
  if (number % 8 === 2 || number % 50 === 0) {
    const answer = await engine.cancel(id);
    if (answer === 'cancelled') cancelled.add(number);
    if (answer === 'signalled') signalled.add(number);
  }
}

/** Waits until nothing is left, after those that have failed were retried once. */
async function settled(engine) {
  const idle = async () => {
    const end = Date.now() + 120_000;
    for (;;) {
      const { queued, running } = await engine.stats();
      if (queued + running === 0 || Date.now() > end) return;
      await sleep(200);
    }
  };
  await idle();
  await engine.retry({ state: 'failed' });
  await idle();
}

async function verdict(engine, { log }, { acknowledged, cancelled, signalled }, begin, end) {
  const runs = new Map();
  const slots = new Map();
  for (const line of existsSync(log) ? readFileSync(log, 'utf8').split('\n') : []) {
    const [what, which] = line.split(' ');
    if (what === 'ran') runs.set(Number(which), (runs.get(Number(which)) ?? 0) + 1);
    if (what === 'slot') slots.set(Number(which), (slots.get(Number(which)) ?? new Set()).add(line.split(' ')[2]));
  }
  const states = new Map();
  for (const [number, id] of acknowledged.entries()) states.set(number, (await engine.get(id))?.state);
  const expected = (number) => (cancelled.has(number) ? 'cancelled' : 'succeeded');
  const missing = [];
  for (let slot = Math.ceil((begin + 1000) / 1000); slot < Math.floor(end / 1000); slot++) {
    if (!slots.has(slot * 1000)) missing.push(new Date(slot * 1000).toISOString());
  }
  const figures = {
    acknowledged: acknowledged.length,
    cancelled: cancelled.size,
    'told to stop while they ran': signalled.size,
    'run although cancelled': [...cancelled].filter((number) => runs.has(number)).length,
    'not run': acknowledged.filter((_, n) => !cancelled.has(n) && !signalled.has(n) && !runs.has(n)).length,
    'run more than once': [...runs].filter(([number, count]) => number % 4 !== 3 && count > 1).length,
    'in a wrong state': acknowledged.filter((_, n) => !signalled.has(n) && states.get(n) !== expected(n)).length,
    slots: slots.size,
    'slots without a task': missing.length,
    'slots with several tasks': [...slots.values()].filter((ids) => ids.size > 1).length,
  };
  for (const [name, figure] of Object.entries(figures)) console.log(`${name.padEnd(32)}${figure}`);
  if (missing.length > 0) console.log(`without a task: ${missing.join(' ')}`);
  const bad = [
    'run although cancelled',
    'not run',
    'in a wrong state',
    'slots without a task',
    'slots with several tasks',
  ];
  return bad.reduce((sum, name) => sum + figures[name], 0);
}

async function startWorker(subject) {
  const child = fork(fileURLToPath(import.meta.url), ['worker', JSON.stringify(subject)]);
  await once(child, 'message');
  return child;
}

async function stop(child, signal) {
  child.kill(signal);
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** In a child process. */
async function beWorker({ module, config, log }) {
  const engine = await require(module).createEngine(config);
  const ran = async (number) => {
    await sleep(Math.random() * 50);
    appendFileSync(log, `ran ${number}\n`);
  };
  const isRetried = () => currentTask().attempt > 1;
  const tasks = [
    task('faults.work', ran),
    task('faults.flaky', async (number) => {
      if (!isRetried()) throw new Error('not yet');
      await ran(number);
    }),
    task('faults.broken', async (number) => {
      await ran(number);
      if (!isRetried()) throw new Error('broken');
    }),
    task('faults.tick', () => {
      const { id } = currentTask();
      const slot = Number.parseInt(id.replace('-', '').slice(0, 12), 16); // The id holds the time of the slot.
      appendFileSync(log, `slot ${slot} ${id}\n`);
    }),
  ];
  await engine.work(tasks, { onError: () => {} });
  process.once('SIGTERM', async () => {
    await engine.close();
    process.disconnect();
  });
  process.send('ready');
}
