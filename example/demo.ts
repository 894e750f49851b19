// Sends real requests to the example and prints what happens when: each response arrives first, then its tasks run, in
// order. Checks what it shows, and exits with 1 if anything was otherwise.

import assert from 'node:assert/strict';
import { subscribe, tracingChannel } from 'node:diagnostics_channel';
import { once } from 'node:events';
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { createServer, type ServerResponse } from 'node:http';
import type { AddressInfo } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { TaskTrace } from 'express-background-tasks';
import { makeApp } from './app.js';

let start = 0;
/** What happened since the last request was sent. */
let events: string[] = [];
const startTimes = new WeakMap<TaskTrace, number>();

async function demo(): Promise<void> {
  const directory = await mkdtemp(join(tmpdir(), 'background-tasks-demo-'));
  const logFile = join(directory, 'log.txt');
  const { app, tasks } = makeApp(logFile, { pause: 400, logger: { error: showReport } });
  const server = createServer(app).listen(0, '127.0.0.1');
  await once(server, 'listening');
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
  await fetch('data:,'); // Node loads fetch at the first use, which is no part of the timeline.
  start = performance.now();
  console.log(`The example listens on ${url}. Every asynchronous task of it takes 400 ms.`);

  title('A notification. Its middleware adds a task, then its handler adds two more.');
  await post(`${url}/send-notification/ada@example.com?q=lovelace`);
  await tasks.idle();
  const log = await readFile(logFile, 'utf8');
  showFile('log.txt', log);
  check(['response sent', ...ran('writeLog'), ...ran('writeNotification'), ...ran('countNotification')]);
  assert.equal(log, 'found query: lovelace\nnotification for ada@example.com: some notification\n');

  title('A notification to nobody. The client has its 200 when the task fails; the next task runs all the same.');
  await post(`${url}/send-notification/nobody`);
  await tasks.idle();
  check(['response sent', ...ran('writeNotification'), 'failure reported', ...ran('countNotification')]);

  title('A notification, and at once the shutdown: close() waits for the tasks of answered requests.');
  await post(`${url}/send-notification/grace@example.com`);
  server.close();
  server.closeIdleConnections();
  const report = await tasks.close({ timeout: 5_000 });
  show('close()', `${report.succeeded} succeeded, ${report.failed} failed, ${report.abandoned.length} abandoned`);
  const wholeLog = await readFile(logFile, 'utf8');
  showFile('log.txt', wholeLog);
  check(['response sent', ...ran('writeNotification'), ...ran('countNotification')]);
  assert.deepEqual(report, { succeeded: 2, failed: 0, abandoned: [] });
  assert.equal(wholeLog, `${log}notification for grace@example.com: some notification\n`);

  await rm(directory, { recursive: true });
  console.log('\nAll of it happened in the promised order.');
}

/** Returns once the response has arrived; its tasks go on. */
async function post(url: string): Promise<void> {
  events = [];
  show('client', `→ POST ${new URL(url).pathname}${new URL(url).search}`);
  const response = await fetch(url, { method: 'POST' });
  const text = await response.text();
  events.push('response arrived');
  show('client', `← ${response.status} arrived: ${text}`);
}

subscribe('http.server.response.finish', (message) => {
  const { response } = message as { response: ServerResponse };
  events.push('response sent');
  show('server', `← ${response.statusCode} sent`);
});

tracingChannel<unknown, TaskTrace>('express-background-tasks:task').subscribe({
  start(trace) {
    startTimes.set(trace, performance.now());
    events.push(`${trace.task.name} started`);
  },
  /** The call has ended. What it returned may still have to be awaited. */
  end(trace) {
    if ('result' in trace || 'error' in trace) taskEnded(trace);
  },
  asyncStart() {},
  asyncEnd: taskEnded,
  error() {},
});

function taskEnded(trace: TaskTrace): void {
  const { name } = trace.task;
  const took = Math.round(performance.now() - (startTimes.get(trace) ?? 0));
  events.push(`${name} ended`);
  show('task', `${name} ${'error' in trace ? `failed after ${took} ms: ${trace.error}` : `done, took ${took} ms`}`);
}

function showReport(_context: object, message: string): void {
  events.push('failure reported');
  show('logger', message);
}

/** The response arrives at some moment before the first task has ended: tasks start when it was sent. */
function check(expected: string[]): void {
  const withoutArrival = events.filter((event) => event !== 'response arrived');
  assert.deepEqual(withoutArrival, expected);
  const firstEnd = events.findIndex((event) => event.endsWith(' ended'));
  assert.ok(events.indexOf('response arrived') < firstEnd, 'the first task had ended before the response arrived');
}

function showFile(name: string, content: string): void {
  console.log();
  for (const line of content.trimEnd().split('\n')) console.log(`           ${name.padEnd(7)} | ${line}`);
}

function ran(task: string): string[] {
  return [`${task} started`, `${task} ended`];
}

function title(text: string): void {
  console.log(`\n${text}\n`);
}

function show(who: string, what: string): void {
  const ms = Math.round(performance.now() - start);
  console.log(`${String(ms).padStart(6)} ms  ${who.padEnd(7)}  ${what}`);
}

demo().catch((error: unknown) => {
  console.error(error);
  process.exit(1);
});

setTimeout(() => {
  throw new Error('The demo did not end within 9 s');
}, 9_000).unref();
