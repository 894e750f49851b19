// A worker in a process of its own, beside the one in the server: example/worker.ts <the server's tasks.db> [lease in ms]

import { tracingChannel } from 'node:diagnostics_channel';
import type { TaskTrace } from 'express-background-tasks';
import { gracefulShutdown } from 'express-background-tasks/shutdown';
import { openEngine } from './engine.js';
import { analyseUpload } from './uploads.js';

const [, , path, lease = '15000'] = process.argv;

async function main(): Promise<void> {
  if (path === undefined) throw new Error('Which tasks.db? The server prints it');
  const engine = await openEngine(path, { lease: Number(lease) });
  if (engine === undefined) throw new Error('better-sqlite3 13 needs Node.js 22 or later');
  const worker = await engine.work([analyseUpload], { concurrency: 1 });
  console.log(`worker ${process.pid} is ready`);

  // What has not ended in time is given back, and runs again elsewhere.
  gracefulShutdown(null, {
    workers: [worker],
    engine,
    timeout: 25_000,
    onClose: () => console.log(`worker ${process.pid} has stopped`),
  });
}

function show({ task: { name, id, attempt } }: TaskTrace, what: string): void {
  console.log(`worker ${process.pid}: ${name} ${id.slice(-8)} ${what} (attempt ${attempt})`);
}

tracingChannel<unknown, TaskTrace>('express-background-tasks:task').subscribe({
  start: (trace) => show(trace, 'started'),
  end() {},
  asyncStart() {},
  asyncEnd: (trace) => show(trace, 'error' in trace ? 'failed' : 'done'),
  error() {},
});

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
