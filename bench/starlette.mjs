// Measures: requests per second with one asynchronous task, and with one synchronous task, after each response.
// Against: Starlette's BackgroundTasks on uvicorn with uvloop and httptools, as Debian packages them
// (python3-starlette, python3-uvicorn, python3-uvloop, python3-httptools).
// The floor is Express alone, without a task: what no middleware of it can exceed.
// Fair: one process each, the same answer, the same load, in rounds of alternating order. Starlette runs a synchronous task
// in a thread pool, where it may block; ours runs on the event loop, where it must not. That is a difference of the two
// designs, and most of the second figure.

import { spawn, spawnSync } from 'node:child_process';
import { createServer } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';
import { load, startExpress } from './servers.mjs';
import { rowOf } from './statistics.mjs';

const python = '/usr/bin/python3';
const plan = { rounds: 11, requests: 10_000 };

export default async function starlette() {
  if (spawnSync(python, ['-c', 'import starlette, uvicorn, uvloop, httptools']).status !== 0) {
    console.error(
      'starlette: skipped, as python3-starlette, python3-uvicorn, python3-uvloop or python3-httptools is missing',
    );
    return [];
  }
  const theirs = await startUvicorn();
  try {
    return [
      await compare('async', 'one async task', theirs, '≥ 3'),
      await compare('sync', 'one sync task', theirs, '≥ 8'),
      await compare('async', 'plain', theirs),
      await compare('sync', 'plain', theirs),
    ];
  } finally {
    theirs.stop();
  }
}

async function compare(path, kind, theirs, goal) {
  const ours = await startExpress(kind);
  try {
    const urls = [ours.url, `${theirs.url}/${path}`];
    for (const url of urls) await load(url, plan.requests);
    const ratios = [];
    for (let round = 0; round < plan.rounds; round++) {
      const rates = new Map();
      for (const url of round % 2 === 0 ? urls : urls.toReversed())
        rates.set(url, rate(await load(url, plan.requests)));
      ratios.push(rates.get(urls[0]) / rates.get(urls[1]));
    }
    return rowOf({
      what: kind === 'plain' ? 'the floor: Express alone, no task' : `requests per second, ${kind} each`,
      against: `Starlette on uvicorn, one ${path} task each`,
      goal,
      values: ratios,
    });
  } finally {
    ours.stop();
  }
}

function rate(result) {
  return result.requests.total / result.duration;
}

async function startUvicorn() {
  const port = await freePort();
  const args = [
    '-m',
    'uvicorn',
    'starlette_app:app',
    '--port',
    String(port),
    '--loop',
    'uvloop',
    '--http',
    'httptools',
    '--log-level',
    'error',
    '--no-access-log',
  ];
  const process = spawn(python, args, { cwd: fileURLToPath(new URL('servers', import.meta.url)), stdio: 'inherit' });
  const url = `http://127.0.0.1:${port}`;
  for (let attempt = 0; attempt < 100; attempt++) {
    const answered = await fetch(`${url}/async`).then(
      (response) => response.ok,
      () => false,
    );
    if (answered) return { url, stop: () => process.kill() };
    await sleep(100);
  }
  process.kill();
  throw new Error('uvicorn did not start');
}

function freePort() {
  return new Promise((resolve) => {
    const server = createServer().listen(0, '127.0.0.1', () => {
      const { port } = server.address();
      server.close(() => resolve(port));
    });
  });
}
