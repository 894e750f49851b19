// Starts the servers of the benchmarks and puts load on them.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import autocannon from 'autocannon';

/** A server of servers/express.mjs in a process of its own. */
export async function startExpress(kind) {
  const process = fork(fileURLToPath(new URL('servers/express.mjs', import.meta.url)), [kind]);
  const [{ port }] = await once(process, 'message');
  return {
    url: `http://127.0.0.1:${port}`,
    /** CPU time of the process so far, in µs. */
    async cpu() {
      process.send('cpu');
      const [{ cpu }] = await once(process, 'message');
      return cpu;
    },
    stop: () => process.kill(),
  };
}

/** Sends so many requests, over 20 connections, and waits for all answers. */
export async function load(url, amount) {
  // It ends at a sample, and its duration is a multiple of the time between two: a second, unless told otherwise.
  const result = await autocannon({ url, amount, connections: 20, sampleInt: 10 });
  if (result.non2xx + result.errors + result.timeouts > 0) throw new Error(`${url} did not answer all requests`);
  return result;
}

/** CPU time per request of two servers, as the ratio of the first to the second, once per round, in alternating order. */
export async function cpuRatios(first, second, { rounds, requests }) {
  for (const server of [first, second]) await load(server.url, requests);
  const ratios = [];
  for (let round = 0; round < rounds; round++) {
    const cpu = new Map();
    for (const server of round % 2 === 0 ? [first, second] : [second, first]) {
      const before = await server.cpu();
      await load(server.url, requests);
      cpu.set(server, (await server.cpu()) - before);
    }
    ratios.push(cpu.get(first) / cpu.get(second));
  }
  return ratios;
}
