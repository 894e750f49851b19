// A million tasks of every kind on a real app: `node --expose-gc --import tsx scripts/soak.ts [tasks]`. Exits with 1 if the
// heap has grown by more than 2 MB since the first 10,000, if a timer or a listener is left, or if a task was lost.

import { once } from 'node:events';
import { Agent, createServer, get, type IncomingMessage } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { after, type BackgroundTasks, backgroundTasks, currentTask, task } from '../lib/index.js';

const clients = 8;
const tasksPerRequest = 100;
const warmUp = 10_000;
const allowedGrowth = 2 * 1024 * 1024;

const expected = { succeeded: 0, failed: 0, skipped: 0, cancelled: 0 };
const problems: string[] = [];
let reports = 0;

const succeed = (count: number): number => count + 1;
const fail = (): never => {
  throw new Error('soak');
};
const succeedLater = async (): Promise<void> => {
  await undefined;
};
const failLater = async (): Promise<never> => {
  await undefined;
  return fail();
};
const untilAborted = (): Promise<never> =>
  new Promise((_, reject) => {
    const signal = currentTask()?.signal;
    signal?.addEventListener('abort', () => reject(signal.reason));
  });
const retry = { limit: 2, minDelay: 1 };
const flaky = task('flaky', () => (currentTask()?.attempt === 1 ? fail() : 'done'), { retries: retry });
const hopeless = task('hopeless', failLater, { retries: retry });
const tooSlow = task('tooSlow', untilAborted, { timeout: 1 });
const forgotten = task('forgotten', () => new Promise(() => {}), { timeout: 1 });
const inTime = task('inTime', succeedLater, { timeout: 60_000 });
const unwanted = task('unwanted', succeed, { when: () => false });

/** Of each kind as many as stand for it in 100 tasks. Each adds itself and tells how it will end. */
const kinds: [count: number, add: (tasks: BackgroundTasks) => void][] = [
  [45, (tasks) => count('succeeded', tasks.add(succeed, 1))],
  [12, (tasks) => count('failed', tasks.add(fail))],
  [12, (tasks) => count('succeeded', tasks.add(succeedLater))],
  [6, (tasks) => count('failed', tasks.add(failLater))],
  [4, (tasks) => count('succeeded', tasks.add(inTime))],
  [3, (tasks) => count('succeeded', tasks.add(flaky))],
  [1, (tasks) => count('failed', tasks.add(hopeless))],
  [1, (tasks) => count('failed', tasks.add(tooSlow))],
  [1, (tasks) => count('failed', tasks.add(forgotten))],
  [2, (tasks) => count('skipped', tasks.add(unwanted, 1))],
  [4, (tasks) => count('cancelled', tasks.add(fail), (handle) => handle.cancel())],
  [2, cancelRunning],
  [
    3,
    (tasks) =>
      count(
        'succeeded',
        tasks.add(() => count('succeeded', after(succeed, 1))),
      ),
  ],
  [1, addLate],
];

function count<Handle>(status: keyof typeof expected, handle: Handle, then?: (handle: Handle) => unknown): void {
  expected[status]++;
  then?.(handle);
}

function cancelRunning(tasks: BackgroundTasks): void {
  const handle = tasks.add(() => {
    setImmediate(() => handle.cancel());
    return untilAborted();
  });
  expected.cancelled++;
}

/** When the list of the response has ended, or nearly so. */
let openLateAdds = 0;
function addLate(tasks: BackgroundTasks): void {
  openLateAdds++;
  setTimeout(() => {
    count('succeeded', tasks.add(succeed, 1));
    openLateAdds--;
  }, 30);
}

async function main(total: number): Promise<void> {
  const { gc } = globalThis;
  if (gc === undefined) throw new Error('run it with node --expose-gc');
  for (const event of ['unhandledRejection', 'uncaughtException']) {
    process.on(event, (error) => problems.push(`${event}: ${error}`));
  }
  const before = process.getActiveResourcesInfo();

  const tasks = backgroundTasks({ onError: () => void reports++ });
  const app = express();
  app.use(tasks);
  app.get('/', (_req, res) => {
    for (const [times, add] of kinds) for (let time = 0; time < times; time++) add(res.locals.backgroundTasks);
    res.json('answer');
  });
  const server = createServer(app);
  const sockets: Socket[] = [];
  server.on('connection', (socket) => sockets.push(socket));
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  const agent = new Agent({ keepAlive: true, maxSockets: clients });

  const idle = async (): Promise<void> => {
    do {
      await tasks.idle();
      await sleep(10);
    } while (openLateAdds > 0 || tasks.stats.pending + tasks.stats.running > 0);
  };
  const send = async (requests: number): Promise<void> => {
    let left = requests;
    const client = async (): Promise<void> => {
      while (left-- > 0) {
        if (left % 50 === 0) await leaveEarly(port);
        else await ask(port, agent);
        while (tasks.stats.pending > 100 * tasksPerRequest) await sleep(1);
      }
    };
    await Promise.all(Array.from({ length: clients }, client));
    await idle();
  };
  const listeners = (): number => {
    const open = sockets.filter((socket) => !socket.destroyed);
    return open.reduce(
      (sum, socket) => sum + socket.eventNames().reduce((all, name) => all + socket.listenerCount(name), 0),
      0,
    );
  };
  const heap = async (): Promise<number> => {
    for (let time = 0; time < 5; time++) {
      await gc({ execution: 'async' });
      await sleep(20);
    }
    sockets.splice(0, sockets.length, ...sockets.filter((socket) => !socket.destroyed));
    return process.memoryUsage().heapUsed;
  };

  const startedAt = performance.now();
  await send(warmUp / tasksPerRequest);
  const firstHeap = await heap();
  const firstListeners = listeners();
  show(tasks.stats, firstHeap);
  const step = total / 10;
  let lastHeap = firstHeap;
  for (let sent = warmUp; sent < total; sent += step) {
    await send(Math.min(step, total - sent) / tasksPerRequest);
    lastHeap = await heap();
    show(tasks.stats, lastHeap);
  }
  const seconds = (performance.now() - startedAt) / 1000;
  const lastListeners = listeners();

  agent.destroy();
  server.close();
  await once(server, 'close');
  const { stats } = tasks;
  await tasks.close();
  await sleep(100);
  const left = difference(process.getActiveResourcesInfo(), before);

  const growth = lastHeap - firstHeap;
  if (growth > allowedGrowth) problems.push(`the heap has grown by ${megabytes(growth)}`);
  if (lastListeners > firstListeners)
    problems.push(`${lastListeners - firstListeners} listeners are left on the connections`);
  if (left.length > 0) problems.push(`left behind: ${left.join(', ')}`);
  for (const [status, wanted] of Object.entries(expected)) {
    const counted = stats[status as keyof typeof expected];
    if (counted !== wanted) problems.push(`${counted} tasks ${status}, not ${wanted}`);
  }
  if (reports !== expected.failed) problems.push(`${reports} reports of ${expected.failed} failures`);

  console.log(stats);
  console.log(
    `${seconds.toFixed(0)} s; heap ${megabytes(growth)} over that after ${warmUp} tasks; left behind: ${left.join(', ') || 'nothing'}`,
  );
  for (const problem of problems) console.error(`PROBLEM: ${problem}`);
  if (problems.length > 0) process.exitCode = 1;
}

async function ask(port: number, agent: Agent): Promise<void> {
  const [response] = (await once(get({ host: '127.0.0.1', port, agent }), 'response')) as [IncomingMessage];
  response.resume();
  await once(response, 'end');
}

async function leaveEarly(port: number): Promise<void> {
  const socket = connect(port, '127.0.0.1');
  await once(socket, 'connect');
  socket.write('GET / HTTP/1.1\r\nHost: localhost\r\n\r\n', () => socket.destroy());
  await once(socket, 'close');
}

/** What is in the first list and not in the second, one by one. */
function difference(list: string[], other: string[]): string[] {
  const rest = [...other];
  return list.filter((value) => {
    const index = rest.indexOf(value);
    if (index === -1) return true;
    rest.splice(index, 1);
    return false;
  });
}

function show(stats: { [status: string]: number }, heap: number): void {
  const ended = Object.values(stats).reduce((sum, number) => sum + number, 0);
  console.log(`${ended.toLocaleString('en').padStart(9)} tasks, heap ${megabytes(heap)}`);
}

function megabytes(bytes: number): string {
  return `${(bytes / 1024 / 1024).toFixed(2)} MB`;
}

void main(Number(process.argv[2] ?? 1_000_000));
