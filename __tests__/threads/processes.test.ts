// Processes with threads: an idle pool keeps none alive, a busy one answers and stops in its time.

import { type ChildProcess, execFile, spawn } from 'node:child_process';
import { once } from 'node:events';
import { join } from 'node:path';
import { createInterface } from 'node:readline';
import { setTimeout as sleep } from 'node:timers/promises';
import { promisify } from 'node:util';

const fixture = (name: string): string => join(__dirname, 'fixtures', name);
const node = ['--import', 'tsx'];
const started: ChildProcess[] = [];

afterAll(() => {
  for (const child of started) child.kill('SIGKILL');
});

describe('a pool', () => {
  it.each([
    ['unused', ''],
    ['used', '[ 3, 7 ]'],
    ['closed', '[ 3, 7 ]\n[]'],
  ])(
    'that is %s keeps no process alive',
    async (how, printed) => {
      const { stdout } = await promisify(execFile)(process.execPath, [...node, fixture('idle-pool.ts'), how], {
        timeout: 60_000,
      });
      expect(stdout.trim()).toBe(printed);
    },
    70_000,
  );
});

describe('a process whose threads all compute', () => {
  it('answers pings, and ends at SIGTERM in its time', async () => {
    const child = spawn(process.execPath, [...node, fixture('busy-server.ts')], {
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    started.push(child);
    const lines = createInterface(child.stdout)[Symbol.asyncIterator]();
    const nextLine = async (): Promise<unknown> => (await lines.next()).value;
    const url = `http://127.0.0.1:${await nextLine()}`;
    const get = async (path: string): Promise<string> => (await fetch(`${url}${path}`)).text();

    await Promise.all([get('/compute/0'), get('/compute/1')]);
    while ((JSON.parse(await get('/counts')) as number[]).includes(0)) await sleep(10);
    const latencies: number[] = [];
    for (let ping = 0; ping < 100; ping++) {
      const start = performance.now();
      await get('/ping');
      latencies.push(performance.now() - start);
    }
    // On the event loop each would wait for ever. What a ping takes at most is measured by bench/threads.
    expect(latencies.toSorted((a, b) => a - b)[50]).toBeLessThan(1000);

    const exited = once(child, 'exit');
    child.kill('SIGTERM');
    const told = [await nextLine(), await nextLine(), await nextLine()];
    expect(told).toEqual(['ERR_TASK_ABANDONED', 'ERR_TASK_ABANDONED', 'closed']);
    expect(await exited).toEqual([0, null]);
  }, 90_000);
});
