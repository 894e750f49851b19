// Kills a process that serves, enqueues and works at the same time, again and again, with -9: whatever it has acknowledged
// must run. node scripts/faults-sqlite.mjs [rounds, default 100]. Needs a Node that better-sqlite3 runs on.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { Agent, request } from 'node:http';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const clients = 16;
const [, , mode = '100', directory = ''] = process.argv;

if (mode === 'serve') await serve();
else process.exitCode = await run(Number(mode));

/** The victim. Each task writes its number down, so that runs can be counted whatever the database says. */
async function serve() {
  require('../__tests__/fixtures/typescript.cjs');
  const { backgroundTasks, task } = require('../lib/index.ts');
  const { sqlite } = require('../lib/drivers/sqlite/index.ts');
  const express = require('express');
  const engine = sqlite({ path: join(directory, 'tasks.db'), lease: 1000, pollInterval: 100 });
  const write = task('write', async (number) => {
    await sleep(Math.random() * 20);
    appendFileSync(join(directory, 'ran.txt'), `${number}\n`);
  });
  const app = express();
  app.use(backgroundTasks({ engine }));
  app.post('/:number', async (req, res) => {
    const { id } = await res.locals.backgroundTasks.enqueue(write, Number(req.params.number));
    res.status(202).send(id);
  });
  await engine.work([write]);
  const server = app.listen(0, '127.0.0.1', () => process.send(server.address().port));
}

async function run(rounds) {
  const folder = mkdtempSync(join(tmpdir(), 'faults-sqlite-'));
  writeFileSync(join(folder, 'ran.txt'), '');
  /** The ids of the tasks whose request was answered, by number. */
  const acknowledged = new Map();
  const traffic = { sent: 0, acknowledged };
  for (let round = 1; round <= rounds; round++) {
    const { server, port } = await start(folder);
    const sending = Array.from({ length: clients }, () => sendWithoutPause(port, traffic));
    const before = acknowledged.size;
    while (acknowledged.size < before + clients) await sleep(1);
    await sleep(Math.random() * 300);
    server.kill('SIGKILL');
    await once(server, 'exit');
    await Promise.all(sending);
    if (round % 10 === 0) console.log(`${round} rounds: ${acknowledged.size} acknowledged`);
  }
  const { server } = await start(folder);
  const states = await settled(folder);
  server.kill('SIGKILL');
  await once(server, 'exit');
  const failures = report(folder, rounds, traffic, states);
  if (failures === 0) rmSync(folder, { recursive: true });
  else console.log(`kept for a look: ${folder}`);
  return failures === 0 ? 0 : 1;
}

async function start(folder) {
  const server = fork(fileURLToPath(import.meta.url), ['serve', folder]);
  const [port] = await once(server, 'message');
  return { server, port };
}

/** One client: a request at a time, until the server is gone. */
async function sendWithoutPause(port, traffic) {
  const agent = new Agent({ keepAlive: true, maxSockets: 1 });
  try {
    for (;;) {
      const number = ++traffic.sent;
      const id = await post(port, number, agent);
      traffic.acknowledged.set(number, id);
    }
  } catch (error) {
    if (!['ECONNRESET', 'ECONNREFUSED', 'EPIPE'].includes(error.code)) throw error;
  } finally {
    agent.destroy();
  }
}

async function post(port, number, agent) {
  const sent = request({ host: '127.0.0.1', port, path: `/${number}`, method: 'POST', agent });
  sent.end();
  const [response] = await once(sent, 'response');
  response.setEncoding('utf8');
  let body = '';
  for await (const chunk of response) body += chunk;
  if (response.statusCode !== 202) throw new Error(`answered ${response.statusCode}: ${body}`);
  return body;
}

/** Waits until no task is left, and returns how each ended. */
async function settled(folder) {
  const Database = require('better-sqlite3');
  const database = new Database(join(folder, 'tasks.db'), { readonly: true });
  const open = database.prepare('SELECT count(*) FROM background_tasks WHERE finished_at IS NULL').pluck();
  const end = Date.now() + 120_000;
  while (open.get() > 0 && Date.now() < end) await sleep(50);
  const states = new Map(database.prepare('SELECT id, state FROM background_tasks').raw().all());
  const lost = database.prepare('SELECT coalesce(sum(lost), 0) FROM background_tasks').pluck().get();
  const integrity = database.pragma('integrity_check', { simple: true });
  database.close();
  return { states, lost, integrity };
}

function report(folder, rounds, { sent, acknowledged }, { states, lost, integrity }) {
  const runs = new Map();
  for (const line of readFileSync(join(folder, 'ran.txt'), 'utf8').split('\n')) {
    if (line !== '') runs.set(Number(line), (runs.get(Number(line)) ?? 0) + 1);
  }
  const notRun = [...acknowledged.keys()].filter((number) => !runs.has(number));
  const notSucceeded = [...acknowledged.values()].filter((id) => states.get(id) !== 'succeeded');
  const twice = [...runs.values()].filter((count) => count > 1).length;
  const figures = {
    'rounds of kill -9': rounds,
    'requests sent': sent,
    acknowledged: acknowledged.size,
    'acknowledged and run': acknowledged.size - notRun.length,
    'stored, killed before the answer': states.size - acknowledged.size,
    'leases lost and taken again': lost,
    'run more than once': twice,
    'acknowledged and lost': notRun.length,
    'acknowledged and not succeeded': notSucceeded.length,
    'integrity check': integrity,
  };
  for (const [name, figure] of Object.entries(figures)) console.log(`${name.padEnd(34)}${figure}`);
  return notRun.length + notSucceeded.length + (integrity === 'ok' ? 0 : 1);
}
