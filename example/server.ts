// Serves the example until it is told to stop, and then stops in the right order: no answered request loses its tasks.

import { once } from 'node:events';
import { mkdtempSync } from 'node:fs';
import { createServer } from 'node:http';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import closeWithGrace from 'close-with-grace';
import { makeApp } from './app.js';

const { PORT = '3000', LOG_FILE: logFile = join(mkdtempSync(join(tmpdir(), 'background-tasks-')), 'log.txt') } =
  process.env;
const { app, tasks } = makeApp(logFile);

const server = createServer((req, res) => {
  // While the server stops, each connection ends with the answer under way: close() leaves the busy ones open.
  if (!server.listening) res.setHeader('Connection', 'close');
  res.once('close', () => {
    if (!server.listening) req.socket.end();
  });
  app(req, res);
});

/** Stops listening and lets the requests end. After `limit` ms those that have not are cut off. */
async function stop(limit: number): Promise<void> {
  server.close();
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), limit);
  await once(server, 'close');
  clearTimeout(timer);
}

// Longer than what it waits for: 5 s for the requests, 10 s for the tasks.
closeWithGrace({ delay: 16_000 }, async ({ signal, err }) => {
  if (err !== undefined) console.error(err);
  console.log(`${signal ?? 'Error'}: letting the requests and their tasks end`);
  await stop(5_000);
  const { succeeded, failed, abandoned } = await tasks.close({ timeout: 10_000 });
  console.log(`Stopped: ${succeeded} tasks succeeded, ${failed} failed, ${abandoned.length} were abandoned`);
});

server.listen(Number(PORT), () => {
  const address = server.address();
  const url = `http://localhost:${typeof address === 'object' ? address?.port : PORT}`;
  console.log(`Listening on ${url}, writing to ${logFile}. Try:

  curl -X POST '${url}/send-notification/ada@example.com'
  curl -X POST '${url}/send-notification/ada@example.com?q=lovelace'
  cat ${logFile}

  curl -i --data-binary @README.md ${url}/uploads
  curl ${url}/uploads/<the id from the answer>

  head -c 100 /dev/urandom | curl -i --data-binary @- ${url}/uploads    # its task fails, and is reported here

  curl ${url}/
  kill -TERM ${process.pid}    # or Ctrl+C: stops when the tasks have ended`);
});
