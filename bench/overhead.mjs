// Measures: CPU time per request that the middleware costs, without a task and with one async task.
// Against: the same Express app without the middleware; the same app that calls on-finished by hand, as one would without
// this library (no order, no isolation but a catch, no context). The floors: a middleware that does nothing but give after()
// its response; and the smallest one that keeps the main promises, servers/smallest.mjs.
// Fair: the servers run at the same time, in processes of their own, under the same load, in short rounds of alternating
// order; CPU time is the server process's own, so that the load generator and the machine's other work hardly count.

import { cpuTimes, startExpress } from './servers.mjs';
import { median, spread } from './statistics.mjs';

const plan = { rounds: 150, requests: 1000 };

export default async function overhead() {
  const [plain, alone, noTask] = await measure('plain', 'AsyncLocalStorage alone', 'middleware, no task');
  const [byHand, smallest, oneTask] = await measure(
    'by hand, one async task',
    'smallest middleware, one async task',
    'one async task',
  );
  return [
    ratio('CPU per request, no task added', noTask, 'plain', plain, 1.02),
    ratio('the floor: AsyncLocalStorage alone', alone, 'plain', plain),
    ratio('CPU per request, no task added', noTask, 'the floor', alone),
    ratio('CPU per request, one async task', oneTask, 'by hand, one async task', byHand, 1.05),
    ratio('the floor: the smallest middleware', smallest, 'by hand, one async task', byHand),
    ratio('CPU per request, one async task', oneTask, 'the floor', smallest),
  ];
}

async function measure(...kinds) {
  const servers = [];
  try {
    for (const kind of kinds) servers.push(await startExpress(kind));
    return await cpuTimes(servers, plan);
  } finally {
    for (const server of servers) server.stop();
  }
}

function ratio(what, times, against, others, goal) {
  const ratios = times.map((time, round) => time / others[round]);
  const figure = median(ratios);
  const row = { what, against, unit: 'times', figure, spread: spread(ratios), goal: '' };
  return goal === undefined ? row : { ...row, goal: `≤ ${goal}`, met: figure <= goal };
}
