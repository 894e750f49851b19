// Measures: CPU time per request that the middleware costs, without a task and with one async task.
// Against: the same Express app without the middleware; the same app that calls on-finished by hand, as one would without
// this library (no order, no isolation but a catch, no context). The floors: a middleware that does nothing but attach an
// object that after() can find; and the smallest one that keeps the main promises, servers/smallest.mjs.
// Fair: the servers run at the same time, in processes of their own, under the same load, in rounds of alternating order;
// CPU time is the server process's own, so that the load generator and the machine's other work hardly count. Two processes
// of one program differ by some hundredths for as long as they live, so the servers are started anew many times.

import { cpuTimes, startExpress } from './servers.mjs';
import { median, spread } from './statistics.mjs';

const starts = 12;
const plan = { rounds: 5, requests: 5000 };

export default async function overhead() {
  const [plain, attached, noTask] = await measure('plain', 'an object attached, no task', 'middleware, no task');
  const [byHand, smallest, oneTask] = await measure(
    'by hand, one async task',
    'smallest middleware, one async task',
    'one async task',
  );
  return [
    ratio('CPU per request, no task added', noTask, 'plain', plain, 1.02),
    ratio('the floor: an object that after() finds', attached, 'plain', plain),
    ratio('CPU per request, no task added', noTask, 'the floor', attached),
    ratio('CPU per request, one async task', oneTask, 'by hand, one async task', byHand, 1.05),
    ratio('the floor: the smallest middleware', smallest, 'by hand, one async task', byHand),
    ratio('CPU per request, one async task', oneTask, 'the floor', smallest),
  ];
}

/** CPU times of each kind, round by round. */
async function measure(...kinds) {
  const times = kinds.map(() => []);
  for (let start = 0; start < starts; start++) {
    const servers = [];
    try {
      for (const kind of kinds) servers.push(await startExpress(kind));
      const measured = await cpuTimes(servers, plan);
      for (const [index, some] of measured.entries()) times[index].push(...some);
    } finally {
      for (const server of servers) server.stop();
    }
  }
  return times;
}

function ratio(what, times, against, others, goal) {
  const ratios = times.map((time, round) => time / others[round]);
  const figure = median(ratios);
  const row = { what, against, unit: 'times', figure, spread: spread(ratios), goal: '' };
  return goal === undefined ? row : { ...row, goal: `≤ ${goal}`, met: figure <= goal };
}
