// Measures: the p99 of a ping while 200 responses run 20 synchronous tasks of 5 ms each, beyond that of a ping alone.
// Against: the p99 of a ping to the same server when nothing else runs, just before.
// Fair: nobody can interrupt a synchronous task, so the floor is the 5 ms of the task under way; above it stands the time
// slice, 10 ms at most by promise 9. One slow moment of the machine makes a p99, so there are several rounds, each with a
// server of its own.

import { startExpress } from './servers.mjs';
import { quantile, rowOf } from './statistics.mjs';

const rounds = 5;

export default async function fairness() {
  const alone = [];
  const beyond = [];
  for (let round = 0; round < rounds; round++) {
    const server = await startExpress('20 tasks of 5 ms');
    try {
      await pings(server.url, 200);
      const before = quantile(await pings(server.url, 1000), 0.99);
      const answers = Array.from({ length: 200 }, async () => (await fetch(server.url)).text());
      await Promise.all(answers);
      // 200 × 20 × 5 ms are 20 s of work; these pings end before it does.
      const during = quantile(await pings(server.url, 1000), 0.99);
      alone.push(before);
      beyond.push(during - before);
    } finally {
      server.stop();
    }
  }
  return [
    rowOf({
      what: 'p99 of a ping, while 200 responses run 20 tasks of 5 ms: what is added to it',
      against: 'the ping alone',
      unit: 'ms',
      goal: '≤ 15',
      values: beyond,
    }),
    rowOf({ what: 'p99 of the ping alone', unit: 'ms', values: alone }),
  ];
}

/** Latencies in ms, one ping after the other. */
async function pings(url, count) {
  const latencies = [];
  for (let ping = 0; ping < count; ping++) {
    const start = performance.now();
    await (await fetch(`${url}/ping`)).text();
    latencies.push(performance.now() - start);
  }
  return latencies;
}
