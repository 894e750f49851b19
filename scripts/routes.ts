// What the routes of stored tasks cost, on SQLite and over real sockets: `npm run routes`. First 1,000 event streams at a time: how many
// queries they make, how long the end of a task takes to reach its client, and what is left when the clients have gone. Then the
// CPU time of a request for a status, beside a request to the same app for an object of the same size. Exits with 1 if a stream
// missed its end or anything was left.

import assert from 'node:assert/strict';
import { once } from 'node:events';
import { mkdtempSync, rmSync } from 'node:fs';
import { createServer } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import autocannon from 'autocannon';
import express from 'express';
import { SqliteDriver } from '../lib/drivers/sqlite/driver.js';
import { leaseOf } from '../lib/drivers/sqlite/lease.js';
import { OwnConnection } from '../lib/drivers/sqlite/own-connection.js';
import { createEngine } from '../lib/engine/index.js';
import { task, taskStatus } from '../lib/index.js';

const streams = 1000;
const requests = 20_000;
const note = task('note', (number: number) => number);

class CountingDriver extends SqliteDriver {
  queries = 0;

  override find(...args: Parameters<SqliteDriver['find']>): ReturnType<SqliteDriver['find']> {
    this.queries++;
    return super.find(...args);
  }
}

async function main(): Promise<void> {
  const directory = mkdtempSync(join(tmpdir(), 'background-tasks-routes-'));
  const connection = new OwnConnection(join(directory, 'tasks.db'));
  const driver = new CountingDriver(connection, { lease: leaseOf(15_000), pollInterval: 250, retention: 3_600_000 });
  const engine = createEngine(driver);
  const app = express();
  app.get('/tasks/:id', taskStatus(engine));
  app.get('/object', (_req, res) => {
    res.set('Cache-Control', 'no-store').json({
      id: '0190a9f2-6f3c-7c3e-9d5b-1f0c2f8a7b11',
      name: 'note',
      state: 'succeeded',
      attempts: 1,
      times: Array(3).fill(new Date()),
    });
  });
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;

  const tasks = await engine.enqueueMany(
    note,
    Array.from({ length: streams }, (_, number): [number] => [number]),
  );
  let open = await openStreams(port, tasks);
  const cpu = process.cpuUsage();
  const before = driver.queries;
  await sleep(5000);
  const { user, system } = process.cpuUsage(cpu);
  const queries = (driver.queries - before) / 5;
  console.log(
    `${streams} open streams, nothing changes: ${queries.toFixed(1)} queries a second, ${((user + system) / 50_000).toFixed(1)} % of a core`,
  );
  assert.ok(queries < 3);

  const worker = await engine.work([note], { concurrency: 100 });
  await Promise.all(open.map(({ socket }) => once(socket, 'close')));
  const late = open.map(({ endedAt, text }) => {
    const finishedAt = /"state":"succeeded".*"finishedAt":"([^"]*)"/.exec(text())?.[1];
    assert.ok(finishedAt !== undefined, 'a stream has missed its end');
    return endedAt() - Date.parse(finishedAt);
  });
  late.sort((a, b) => a - b);
  console.log(
    `all of their tasks end at once: each client had the end after ${late[late.length >> 1]} ms (median), ${late.at(-1)} ms (longest)`,
  );
  await worker.close();

  const others = await engine.enqueueMany(
    note,
    Array.from({ length: streams }, (_, number): [number] => [number]),
  );
  open = await openStreams(port, others);
  for (const { socket } of open) socket.destroy();
  await sleep(1500);
  const left = driver.queries;
  await sleep(1500);
  const connections = await new Promise((resolve) => server.getConnections((_error, count) => resolve(count)));
  assert.deepEqual({ queries: driver.queries - left, connections }, { queries: 0, connections: 0 });
  console.log(`${streams} clients left: no query and no connection after it`);

  const [ended] = tasks;
  const paths = { status: `/tasks/${ended?.id}`, object: '/object' };
  const times = { status: [] as number[], object: [] as number[] };
  for (let round = 0; round < 7; round++) {
    for (const kind of ['status', 'object'] as const)
      times[kind].push(await cpuTime(`http://127.0.0.1:${port}${paths[kind]}`));
  }
  const [status, object] = [median(times.status), median(times.object)];
  console.log(
    `a request for a status: ${status.toFixed(0)} µs of CPU time with its client, for a plain object ${object.toFixed(0)} µs: ${(status / object).toFixed(2)} times`,
  );
  console.log(
    `so 10,000 of them a second take ${(status - object).toFixed(0)} % of a core more than 10,000 plain objects`,
  );
  await engine.close();
  server.close();
  server.closeAllConnections();
  rmSync(directory, { recursive: true });
}

interface Stream {
  socket: Socket;
  text(): string;
  endedAt(): number;
}

/** Resolves once each of them has its first event. */
async function openStreams(port: number, tasks: readonly { id: string }[]): Promise<Stream[]> {
  return Promise.all(
    tasks.map(async ({ id }) => {
      const socket = connect(port, '127.0.0.1');
      let text = '';
      let endedAt = 0;
      socket.setEncoding('utf8').on('error', () => {});
      socket.on('data', (chunk) => {
        text += chunk;
        endedAt = Date.now();
      });
      socket.write(
        `GET /tasks/${id} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\nConnection: close\r\n\r\n`,
      );
      while (!text.includes('\ndata: ')) await once(socket, 'data');
      return { socket, text: () => text, endedAt: () => endedAt };
    }),
  );
}

/** Per request, in µs. */
async function cpuTime(url: string): Promise<number> {
  const start = process.cpuUsage();
  const result = await autocannon({ url, amount: requests, connections: 20, sampleInt: 10 });
  assert.equal(result.non2xx + result.errors + result.timeouts, 0);
  const { user, system } = process.cpuUsage(start);
  return (user + system) / requests;
}

function median(values: number[]): number {
  return values.toSorted((a, b) => a - b)[values.length >> 1] ?? 0;
}

void main();
