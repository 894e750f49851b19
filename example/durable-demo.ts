// Sends real uploads to the example and prints what happens to their tasks: they are stored before the answers are sent, a
// worker process is killed with -9 in the middle of one, and another worker process runs what is left. Checks what it shows,
// and exits with 1 if anything was otherwise.

import assert from 'node:assert/strict';
import { type ChildProcess, spawn, spawnSync } from 'node:child_process';
import { once } from 'node:events';
import { mkdtemp, rm } from 'node:fs/promises';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import type { TaskEngine } from 'express-background-tasks';
import { makeApp } from './app.js';
import { openEngine } from './engine.js';

const start = performance.now();
const texts = ['one line', 'two words\nand three more', 'a\nb\nc'];
const lease = 1000; // So that the demo is short: how long a dead worker keeps its task. The default is 15 s.

async function main(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'background-tasks-demo-'));
  const path = join(directory, 'tasks.db');
  const engine = await openEngine(path);
  if (engine === undefined) onNewerNode();
  else await demo(directory, path, engine);
  await rm(directory, { recursive: true });
}

async function demo(directory: string, path: string, engine: TaskEngine): Promise<void> {
  const server = createServer(makeApp(join(directory, 'log.txt'), { engine }).app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;

  title('Three uploads. No worker runs yet: each task is stored before its 202 is sent.');
  const locations: string[] = [];
  for (const text of texts) locations.push(await upload(url, text));
  const states = () => Promise.all(locations.map((location) => statusOf(`${url}${location}`)));
  for (const { state } of await states()) assert.equal(state, 'queued');

  title('A worker process takes them, one at a time. In the middle of the second it is killed with -9.');
  const first = startWorker(path);
  await first.printed('started (attempt 1)', 2);
  await sleep(200);
  first.process.kill('SIGKILL');
  await once(first.process, 'exit');
  show('demo', `kill -9 ${first.process.pid}`);
  const [done, cutOff, untouched] = await states();
  assert.deepEqual([done?.state, cutOff?.state, untouched?.state], ['succeeded', 'running', 'queued']);

  title(`Another worker process. The killed one's lease ends ${lease} ms after it was last renewed.`);
  const second = startWorker(path);
  let last = await states();
  while (last.some(({ state }) => state !== 'succeeded')) {
    await sleep(250);
    last = await states();
  }
  second.process.kill('SIGTERM');
  const [exitCode] = await once(second.process, 'exit');
  assert.equal(exitCode, 0);
  assert.deepEqual(
    last.map(({ attempts, result }) => [attempts, result]),
    [
      [1, { bytes: 8, lines: 1, words: 2 }],
      [2, { bytes: 24, lines: 2, words: 5 }],
      [1, { bytes: 5, lines: 3, words: 3 }],
    ],
  );

  server.close();
  server.closeAllConnections();
  await engine.close();
  console.log('\nNothing was lost: all three uploads were analysed, the second one in its second attempt.');
}

/** Returns where its task can be asked for. */
async function upload(url: string, text: string): Promise<string> {
  const response = await fetch(`${url}/uploads`, { method: 'POST', body: text });
  const location = response.headers.get('location') ?? '';
  show('client', `POST /uploads → ${response.status}, Location: ${location}`);
  assert.equal(response.status, 202);
  return location;
}

interface Status {
  state: string;
  attempts: number;
  result?: unknown;
}

const shown = new Map<string, string>();

async function statusOf(url: string): Promise<Status> {
  const status = (await (await fetch(url)).json()) as Status;
  const { state, attempts, result } = status;
  const text = [state, `attempts: ${attempts}`, ...(result ? [JSON.stringify(result)] : [])].join(', ');
  if (shown.get(url) !== text) show('client', `GET /tasks/…${url.slice(-8)} → ${text}`);
  shown.set(url, text);
  return status;
}

interface Worker {
  process: ChildProcess;
  /** Resolves when lines with this text have been printed so many times. */
  printed(text: string, times: number): Promise<void>;
}

function startWorker(path: string): Worker {
  const args = ['--import', 'tsx', join(__dirname, 'worker.ts'), path, String(lease)];
  const worker = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
  process.once('exit', () => worker.kill('SIGKILL')); // Also where a check has failed.
  const lines: string[] = [];
  const reader = createInterface(worker.stdout);
  reader.on('line', (line) => {
    lines.push(line);
    show('worker', line);
  });
  return {
    process: worker,
    async printed(text, times) {
      while (lines.filter((line) => line.includes(text)).length < times) await once(reader, 'line');
    },
  };
}

/** better-sqlite3 13 does not run on this one. */
function onNewerNode(): void {
  const reason = `better-sqlite3 13 needs Node.js 22 or later, and this is ${process.versions.node}`;
  console.log(`\n${reason}: the durable tasks are shown on Node.js 24, which npx fetches.`);
  const program = ['node', '--import', 'tsx', __filename];
  process.exitCode =
    spawnSync('npx', ['--yes', '--package=node@24', '--', ...program], { stdio: 'inherit' }).status ?? 1;
}

function title(text: string): void {
  console.log(`\n${text}\n`);
}

function show(who: string, what: string): void {
  const ms = Math.round(performance.now() - start);
  console.log(`${String(ms).padStart(6)} ms  ${who.padEnd(7)}  ${what}`);
}

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});

setTimeout(() => {
  throw new Error('The demo did not end within 30 s');
}, 30_000).unref();
