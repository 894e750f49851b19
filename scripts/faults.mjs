// What faults-redis.mjs and faults-postgres.mjs do to an engine: workers are killed with -9 while they work, and the server
// is stopped and started under load. Every task that enqueue acknowledged must run; every other enqueue must have rejected
// with ERR_ENGINE_UNAVAILABLE in time.

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
const { task } = require('../lib/index.ts');

const patience = 120_000;

/** Rounds of each kind: the script's argument. */
export async function faults({ name, module, makeServer, configOf }) {
  const rounds = Number(process.argv[2] ?? 20);
  const server = await makeServer();
  await server.start();
  const directory = mkdtempSync(join(tmpdir(), 'faults-'));
  const subject = { module, config: configOf(server), log: join(directory, 'ran.log') };
  const engine = await require(module).createEngine(subject.config);
  try {
    const tally = { next: 0, acknowledged: new Set(), rejected: new Map(), slowest: 0 };
    console.log(`${name}, ${rounds} rounds of each, Node ${process.versions.node}`);
    await killWorkers(rounds, engine, subject, tally);
    await stopServer(rounds, engine, subject, tally, server);
  } finally {
    await engine.close();
    await server.remove();
    rmSync(directory, { recursive: true });
  }
}

async function killWorkers(rounds, engine, subject, tally) {
  const workers = [await startWorker(subject), await startWorker(subject)];
  for (let round = 0; round < rounds; round++) {
    await Promise.all(Array.from({ length: 50 }, () => enqueue(engine, tally)));
    await sleep(Math.random() * 200);
    const [victim] = workers.splice(Math.floor(Math.random() * 2), 1);
    await kill(victim);
    workers.push(await startWorker(subject));
  }
  await verdict('worker killed with -9', subject, tally);
  await Promise.all(workers.map(kill));
}

async function stopServer(rounds, engine, subject, tally, server) {
  const workers = [await startWorker(subject), await startWorker(subject)];
  let isOver = false;
  const load = (async () => {
    const pending = [];
    while (!isOver) {
      pending.push(enqueue(engine, tally));
      await sleep(10);
    }
    await Promise.all(pending);
  })();
  for (let round = 0; round < rounds; round++) {
    await sleep(500 + Math.random() * 500);
    await server.stop();
    await sleep(Math.random() * 1500);
    await server.start();
    while (!(await enqueue(engine, tally))) await sleep(100);
  }
  isOver = true;
  await load;
  await verdict('server stopped and started', subject, tally);
  await Promise.all(workers.map(kill));
}

/** Resolves with whether it was acknowledged. */
async function enqueue(engine, tally) {
  const number = tally.next++;
  const start = performance.now();
  try {
    await engine.enqueue(task('faults.work'), number);
    tally.acknowledged.add(number);
    return true;
  } catch (error) {
    if (error.code !== 'ERR_ENGINE_UNAVAILABLE') throw error;
    tally.rejected.set(number, error);
    return false;
  } finally {
    tally.slowest = Math.max(tally.slowest, performance.now() - start);
  }
}

async function verdict(fault, { log }, { acknowledged, rejected, slowest }) {
  const start = performance.now();
  let runs = readRuns(log);
  while ([...acknowledged].some((number) => !runs.has(number)) && performance.now() - start < patience) {
    await sleep(200);
    runs = readRuns(log);
  }
  const lost = [...acknowledged].filter((number) => !runs.has(number));
  const figures = {
    acknowledged: acknowledged.size,
    lost: lost.length,
    'run more than once': [...acknowledged].filter((number) => (runs.get(number) ?? 0) > 1).length,
    rejected: rejected.size,
    'run although rejected': [...rejected.keys()].filter((number) => runs.has(number)).length,
    'slowest enqueue': `${Math.round(slowest)} ms`,
    'until all had run': `${((performance.now() - start) / 1000).toFixed(1)} s`,
  };
  console.log(
    `${fault}: ${Object.entries(figures)
      .map(([what, figure]) => `${what} ${figure}`)
      .join(', ')}`,
  );
  if (lost.length > 0 || slowest > 5500) process.exitCode = 1;
  acknowledged.clear();
  rejected.clear();
}

function readRuns(log) {
  const runs = new Map();
  for (const line of existsSync(log) ? readFileSync(log, 'utf8').split('\n') : []) {
    if (line !== '') runs.set(Number(line), (runs.get(Number(line)) ?? 0) + 1);
  }
  return runs;
}

async function startWorker(subject) {
  const child = fork(fileURLToPath(import.meta.url), [JSON.stringify(subject)]);
  await once(child, 'message');
  return child;
}

async function kill(child) {
  child.kill('SIGKILL');
  if (child.exitCode === null && child.signalCode === null) await once(child, 'exit');
}

/** In a child process. */
async function work({ module, config, log }) {
  const engine = await require(module).createEngine(config);
  const handler = async (number) => {
    await sleep(Math.random() * 50);
    appendFileSync(log, `${number}\n`);
  };
  await engine.work([task('faults.work', handler)], { onError: (error) => console.error(error) });
  process.send('ready');
}

if (process.argv[1] === fileURLToPath(import.meta.url)) await work(JSON.parse(process.argv[2]));
