// Measures: the share of a process's CPU time that running tasks after responses takes, without a task and with one async
// task, by the samples of V8's CPU profiler.
// Against: the same done by hand with on-finished, as one would without this library (no order, no isolation but a catch, no
// context). The floors: a middleware that does nothing but attach an object that after() can find; and the smallest one
// that keeps the main promises, servers/smallest.mjs.
// Counted, alike for all of them: samples in what is added to the Express app (this library's dist/, or servers/additions.mjs
// and servers/smallest.mjs), in on-finished with ee-first, and in Node's async context machinery (AsyncLocalStorage,
// AsyncResource, async_hooks, AsyncContextFrame). A sample in another function of Node that these call (an emitter's on(),
// setImmediate()) is counted only in the row "with what it calls". Not counted: the garbage collector, and Node's way from
// the event loop to a callback; no sample says for whom they work.
// Out of: all samples in JavaScript, those of Express, of Node and of the client, which shares the process. Where the goal
// is one of all samples, those of native code and of the collector are added. How many of them fall into system calls depends
// on what else the machine does (7 to 44 % were seen of one program), so that share says little.
// Fair: a share of JavaScript does not depend on how fast the machine is at that moment, so that other work on it hardly
// matters. Two processes of one program are compiled differently, so each kind is measured in several, in alternating order.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { fileURLToPath } from 'node:url';
import { order, rowOf } from './statistics.mjs';

const processes = 9;
const requests = { warmUp: 30_000, measured: 50_000 };

const root = fileURLToPath(new URL('..', import.meta.url));
const ofUser = [
  'dist/',
  'bench/servers/additions.mjs',
  'bench/servers/smallest.mjs',
  'node_modules/on-finished/',
  'node_modules/ee-first/',
];
const ofNode = /^node:(internal\/)?(async_hooks|async_context_frame|async_local_storage\/)/;

export default async function overhead() {
  const measured = await measure({
    plain: 'plain',
    attached: 'an object attached, no task',
    noTask: 'middleware, no task',
    byHand: 'by hand, one async task',
    smallest: 'smallest middleware, one async task',
    oneTask: 'one async task',
  });
  const share = (what, kind, goal, of = 'ofJavaScript') =>
    rowOf({
      what,
      against: of === 'ofJavaScript' ? 'all JavaScript' : 'all samples',
      unit: '%',
      goal,
      values: measured[kind].map((shares) => shares[of] * 100),
    });
  const ratio = (what, kind, against, other, goal, of = 'ofTheRest') =>
    rowOf({
      what,
      against,
      goal,
      values: measured[kind].map((shares, round) => shares[of] / measured[other][round][of]),
    });
  return [
    share('no task added', 'noTask', '≤ 0.5', 'ofAll'),
    share('no task added', 'noTask'),
    share('the floor: an object that after() finds', 'attached'),
    share('a plain app', 'plain'),
    share('one async task', 'oneTask'),
    share('the floor: the smallest middleware, one async task', 'smallest'),
    share('by hand, one async task', 'byHand'),
    ratio('one async task', 'oneTask', 'by hand', 'byHand', '≤ 2.0'),
    ratio('the same, with what it calls', 'oneTask', 'by hand', 'byHand', '', 'withCalled'),
    ratio('the floor: the smallest middleware', 'smallest', 'by hand', 'byHand'),
    ratio('one async task', 'oneTask', 'the floor', 'smallest'),
    ratio('no task added', 'noTask', 'the floor: an object', 'attached'),
  ];
}

/** The shares of each kind, process by process. */
async function measure(kinds) {
  const names = Object.keys(kinds);
  const shares = Object.fromEntries(names.map((name) => [name, []]));
  for (let round = 0; round < processes; round++) {
    for (const index of order(names.length, round)) shares[names[index]].push(await sharesOf(kinds[names[index]]));
  }
  return shares;
}

async function sharesOf(kind) {
  const child = fork(fileURLToPath(new URL('servers/profiled.mjs', import.meta.url)), [
    kind,
    String(requests.warmUp),
    String(requests.measured),
  ]);
  const [samples] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (!Array.isArray(samples)) throw new Error(`the profile of "${kind}" has failed`);
  const sum = (isIncluded) => samples.filter(isIncluded).reduce((total, { count }) => total + count, 0);
  const javaScript = sum(({ script }) => script !== '');
  const counted = sum(({ script }) => isCounted(script));
  const called = sum(({ script, caller }) => script !== '' && !isCounted(script) && isCounted(caller));
  return {
    ofAll: counted / sum(() => true),
    ofJavaScript: counted / javaScript,
    // What the app itself takes is the same for all kinds: the unit in which they are compared.
    ofTheRest: counted / (javaScript - counted - called),
    withCalled: (counted + called) / (javaScript - counted - called),
  };
}

function isCounted(script) {
  return ofNode.test(script) || ofUser.some((path) => pathOf(script).startsWith(`${root}${path}`));
}

/** CommonJS modules are named by their path, ES modules by their URL. */
function pathOf(script) {
  return script.startsWith('file:') ? fileURLToPath(script) : script;
}
