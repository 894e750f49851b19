// Measures: CPU time of a server per request with one async task, with OpenTelemetry's SDK.
// Against: the same server, not traced; and the same with OpenTelemetry's instrumentation of HTTP alone.
// Fair: one process each, the same app and the same load from this process, in rounds of alternating order. Spans go to a
// BatchSpanProcessor whose exporter does nothing. The CPU time is the server's own, without its client.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { load } from './servers.mjs';
import { order, rowOf } from './statistics.mjs';

const plan = { rounds: 7, warmUp: 10_000, requests: 20_000 };
const kinds = ['nothing', 'http', 'both'];

export default async function tracing() {
  const times = { nothing: [], http: [], both: [] };
  for (let round = 0; round < plan.rounds; round++) {
    for (const index of order(kinds.length, round)) times[kinds[index]].push(await cpuPerRequest(kinds[index]));
  }
  const differences = (more, less) => times[more].map((time, round) => time - times[less][round]);
  const ratios = (more, less) => times[more].map((time, round) => time / times[less][round]);
  return [
    rowOf({ what: 'CPU per request, not traced', unit: 'µs', values: times.nothing }),
    rowOf({ what: 'what the instrumentation of HTTP adds', unit: 'µs', values: differences('http', 'nothing') }),
    rowOf({ what: 'what the instrumentation of tasks adds to that', unit: 'µs', values: differences('both', 'http') }),
    rowOf({ what: 'CPU per request, both', against: 'HTTP alone', values: ratios('both', 'http') }),
  ];
}

async function cpuPerRequest(kind) {
  const server = fork(fileURLToPath(new URL('servers/traced.mjs', import.meta.url)), [kind]);
  try {
    const [{ port }] = await once(server, 'message');
    const url = `http://127.0.0.1:${port}`;
    await load(url, plan.warmUp);
    const before = await cpuOf(server);
    await load(url, plan.requests);
    return ((await cpuOf(server)) - before) / plan.requests;
  } finally {
    server.kill();
  }
}

async function cpuOf(server) {
  server.send('cpu');
  const [{ cpu }] = await once(server, 'message');
  return cpu;
}
