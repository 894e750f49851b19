// Serves the example until it is told to stop, and then stops in the right order: no answered request loses its tasks.

import { mkdtempSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join } from 'node:path';
import { gracefulShutdown } from 'express-background-tasks/shutdown';
import { makeApp } from './app.js';
import { openEngine } from './engine.js';
import { analyseUpload } from './uploads.js';

const { PORT = '3000', LOG_FILE: logFile = join(mkdtempSync(join(tmpdir(), 'background-tasks-')), 'log.txt') } =
  process.env;
const tasksFile = join(dirname(logFile), 'tasks.db');

async function main(): Promise<void> {
  const engine = await openEngine(tasksFile);
  const { app, tasks } = makeApp(logFile, { ...(engine && { engine }) });
  const workers = engine === undefined ? [] : [await engine.work([analyseUpload])];

  const server = app.listen(Number(PORT), (error) => {
    if (error !== undefined) throw error;
    const address = server.address();
    const url = `http://localhost:${typeof address === 'object' ? address?.port : PORT}`;
    console.log(`Listening on ${url}: open it in a browser. Writes to ${logFile}. Try:
${engine === undefined ? notifications(url) + noUploads : notifications(url) + uploads(url)}
  kill -TERM ${process.pid}    # or Ctrl+C: stops when the tasks have ended`);
  });

  gracefulShutdown(server, {
    tasks,
    workers,
    engine,
    timeout: 25_000,
    onClose({ tasks: { succeeded, failed, abandoned } = nothing }) {
      console.log(`Stopped: ${succeeded} tasks succeeded, ${failed} failed, ${abandoned.length} were abandoned`);
    },
  });
}

const nothing = { succeeded: 0, failed: 0, abandoned: [] };

const notifications = (url: string): string => `
  curl -X POST '${url}/send-notification/ada@example.com'
  curl -X POST '${url}/send-notification/ada@example.com?q=lovelace'
  curl -X POST '${url}/send-notification/nobody'    # its task fails, and is reported here
  cat ${logFile}
  curl ${url}/
`;

const uploads = (url: string): string => `
  curl -i --data-binary @README.md ${url}/uploads
  curl -i ${url}/tasks/<the id from the answer>
  npm run example:worker -- ${tasksFile}    # in another terminal: shares the work
`;

const noUploads = `
  Uploads need Node.js 22 or later, which better-sqlite3 13 runs on; this is ${process.versions.node}.
`;

main().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});
