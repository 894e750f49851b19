// Takes the locks away from processes that use one SQLite file: they copy its folder, read the file, or open and close it with
// another SQLite library, while others start, close and are killed with -9. Whatever was acknowledged must be in the file.
// node scripts/faults-sqlite-files.mjs [seconds, default 60]. Needs Node.js 24.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { appendFileSync, cpSync, mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import { fileURLToPath } from 'node:url';

const require = createRequire(import.meta.url);
const [, , mode = '60', directory = ''] = process.argv;
const databases = join(directory, 'databases');
const path = join(databases, 'tasks.db');
const log = join(directory, 'acknowledged.txt');

/** What each kind of process does besides. */
const kinds = {
  worker: { works: true, takesLocks: true, closes: false },
  server: { works: false, takesLocks: true, closes: false },
  'cron job': { works: false, takesLocks: false, closes: true },
  'careless cron job': { works: false, takesLocks: true, closes: true },
};

if (mode in kinds) await enqueue(kinds[mode]);
else process.exitCode = await run(Number(mode));

async function enqueue({ works, takesLocks, closes }) {
  require('../__tests__/fixtures/typescript.cjs');
  const { task } = require('../lib/index.ts');
  const { sqlite } = require('../lib/drivers/sqlite/index.ts');
  const engine = sqlite({ path, lease: 2000 });
  const write = task('write', () => {});
  if (works) await engine.work([write], { concurrency: 5 });
  do {
    const text = 'x'.repeat(chance(0.2) ? 100_000 : 10); // The log is written back now and then.
    const results = await Promise.allSettled(Array.from({ length: 10 }, () => engine.enqueue(write, text)));
    for (const { value, reason } of results) {
      if (value === undefined) process.send(String(reason));
      else appendFileSync(log, `${value.id}\n`);
    }
    if (takesLocks && chance(0.1)) takeLocks();
    await sleep(Math.random() * 5);
  } while (!closes || !chance(0.1));
  await engine.close();
  process.exit();
}

function takeLocks() {
  const { DatabaseSync } = process.getBuiltinModule('node:sqlite');
  const ways = [
    () => cpSync(databases, join(directory, `copy of ${process.pid}`), { recursive: true }),
    () => readFileSync(path),
    () => {
      const database = new DatabaseSync(path, { timeout: 5000 });
      database.prepare('SELECT count(*) FROM background_tasks').get();
      database.close();
    },
  ];
  ways[Math.floor(Math.random() * ways.length)]();
}

async function run(seconds) {
  const folder = mkdtempSync(join(tmpdir(), 'faults-sqlite-files-'));
  mkdirSync(join(folder, 'databases'));
  writeFileSync(join(folder, 'acknowledged.txt'), '');
  const tally = { started: 0, killed: 0, rejected: [], isOver: false };
  const children = new Map();
  const running = Object.keys(kinds).map((kind) => keepRunning(kind, folder, tally, children));
  const end = Date.now() + seconds * 1000;
  while (Date.now() < end) {
    await sleep(Math.random() * 2000);
    kill(children, [Object.keys(kinds)[Math.floor(Math.random() * 4)]]);
    tally.killed++;
  }
  tally.isOver = true;
  kill(children, Object.keys(kinds));
  await Promise.all(running);
  const failures = report(folder, tally);
  if (failures === 0) rmSync(folder, { recursive: true });
  else console.log(`kept for a look: ${folder}`);
  return failures === 0 ? 0 : 1;
}

async function keepRunning(kind, folder, tally, children) {
  while (!tally.isOver) {
    const child = fork(fileURLToPath(import.meta.url), [kind, folder]);
    child.on('message', (reason) => tally.rejected.push(reason));
    children.set(kind, child);
    tally.started++;
    await once(child, 'exit');
  }
}

function kill(children, which) {
  for (const kind of which) children.get(kind)?.kill('SIGKILL');
}

function report(folder, { started, killed, rejected }) {
  const Database = require('better-sqlite3');
  const database = new Database(join(folder, 'databases', 'tasks.db'));
  const stored = new Set(database.prepare('SELECT id FROM background_tasks').pluck().all());
  const integrity = database.pragma('integrity_check', { simple: true });
  database.close();
  const acknowledged = readFileSync(join(folder, 'acknowledged.txt'), 'utf8').split('\n').filter(Boolean);
  const lost = acknowledged.filter((id) => !stored.has(id));
  const figures = {
    'processes started': started,
    'killed with -9': killed,
    acknowledged: acknowledged.length,
    'acknowledged and lost': lost.length,
    rejected: rejected.length,
    'integrity check': integrity,
  };
  for (const [name, figure] of Object.entries(figures)) console.log(`${name.padEnd(34)}${figure}`);
  for (const reason of new Set(rejected)) console.log(reason);
  return lost.length + (integrity === 'ok' ? 0 : 1);
}

function chance(probability) {
  return Math.random() < probability;
}
