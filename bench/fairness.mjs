// Measures: the p99 of a ping while 200 responses run 20 synchronous tasks of 5 ms each.
// Against: the p99 of a ping to the same server when nothing else runs, in the same run.
// Fair: nobody can interrupt a synchronous task, so the floor is that ping and the 5 ms of the task under way; above it
// stands the time slice, 10 ms at most by promise 9.

import { startExpress } from './servers.mjs';
import { quantile } from './statistics.mjs';

export default async function fairness() {
  const server = await startExpress('20 tasks of 5 ms');
  try {
    await pings(server.url, 200);
    const alone = quantile(await pings(server.url, 1000), 0.99);
    const answers = Array.from({ length: 200 }, async () => (await fetch(server.url)).text());
    await Promise.all(answers);
    // 200 × 20 × 5 ms are 20 s of work; these pings end before it does.
    const during = quantile(await pings(server.url, 1000), 0.99);
    const limit = 5 + 10 + alone;
    return [
      {
        what: 'p99 of a ping, while 200 responses run 20 tasks of 5 ms',
        against: `the ping alone (${alone.toFixed(1)} ms)`,
        unit: 'ms',
        goal: `≤ ${limit.toFixed(1)}`,
        figure: during,
        met: during <= limit,
      },
    ];
  } finally {
    server.stop();
  }
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
