// An Express server and its client, together in one process under V8's CPU profiler. The arguments are the kind of app, for
// how many requests it warms up, and for how many it is measured. Sends how many CPU samples there were, by function.

import { once } from 'node:events';
import { Session } from 'node:inspector/promises';
import { load } from '../servers.mjs';
import { appOf } from './app.mjs';

const [kind, ...amounts] = process.argv.slice(2);
const [warmUp, measured] = amounts.map(Number);

const session = new Session();
session.connect();
await session.post('Profiler.enable');
await session.post('Profiler.setSamplingInterval', { interval: 100 }); // In µs.
// From the start on: of code that was compiled before, the profiler does not know which functions are inlined in it.
await session.post('Profiler.start');

const server = appOf(kind).listen(0, '127.0.0.1');
await once(server, 'listening');
const url = `http://127.0.0.1:${server.address().port}`;
await load(url, warmUp);
const start = performance.now();
await load(url, measured);
const { profile } = await session.post('Profiler.stop');
const length = (performance.now() - start) * 1000;
process.send(countSamples(profile, profile.endTime - length), () => process.exit());

/** The samples of a profile from a time on, but for those where the process had nothing to do. */
function countSamples({ nodes, samples, timeDeltas, startTime }, from) {
  const byId = new Map(nodes.map((node) => [node.id, node]));
  for (const node of nodes) {
    for (const child of node.children ?? []) byId.get(child).parent = node;
  }
  const counts = new Map();
  let time = startTime;
  for (const [index, id] of samples.entries()) {
    time += timeDeltas[index];
    if (time >= from) counts.set(id, (counts.get(id) ?? 0) + 1);
  }
  return [...counts]
    .map(([id, count]) => ({ count, ...placeOf(byId.get(id)) }))
    .filter(({ name }) => name !== '(idle)');
}

/** The function that ran, its script, and that of the innermost function which is not Node's own. */
function placeOf(node) {
  let caller = node;
  while (caller !== undefined && isNodes(caller.callFrame)) caller = caller.parent;
  const { functionName, url } = node.callFrame;
  return { name: functionName, script: url, caller: caller?.callFrame.url ?? '' };
}

function isNodes({ url }) {
  return url === '' || url.startsWith('node:');
}
