// Measures: CPU time per request that the middleware costs, without a task and with one async task.
// Against: the same Express app without the middleware; the same app that calls on-finished by hand, as one would without
// this library (no order, no isolation but a catch, no context).
// Fair: both servers run at the same time, in processes of their own, under the same load, in rounds of alternating order;
// CPU time is the server process's own, so that the load generator and the machine's other work hardly count.

import { cpuRatios, startExpress } from './servers.mjs';
import { median, spread } from './statistics.mjs';

const plan = { rounds: 61, requests: 3000 };

export default async function overhead() {
  return [
    await compare('CPU per request, no task added', 'middleware, no task', 'plain', 1.02),
    await compare('the floor: AsyncLocalStorage alone', 'AsyncLocalStorage alone', 'plain'),
    await compare('CPU per request, one async task', 'one async task', 'by hand, one async task', 1.05),
  ];
}

async function compare(what, ours, against, goal) {
  const servers = [await startExpress(ours), await startExpress(against)];
  try {
    const ratios = await cpuRatios(...servers, plan);
    return {
      what,
      against,
      unit: 'times',
      figure: median(ratios),
      spread: spread(ratios),
      ...(goal === undefined ? { goal: '' } : { goal: `≤ ${goal}`, met: median(ratios) <= goal }),
    };
  } finally {
    for (const server of servers) server.stop();
  }
}
