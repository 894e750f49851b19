// Measures: how a server answers while every thread computes, and what a call in a thread costs.
// Against: the same work on the event loop; the same server with nothing to do; bare piscina with the same options; one thread.
// Fair: the work is a loop over the clock, 25 ms a task, and as many threads compute as the machine has CPUs, which the server and
// the client share with them. Bare piscina has the options that hold (no atomics, an idle timeout), a signal for each call, as
// every call of ours can be stopped, and the same function behind `run()`. A call of ours adds what a thread needs for
// currentTask(), its signal and its errors. Both pools live in this process, and take turns.

import { availableParallelism } from 'node:os';
import { fileURLToPath } from 'node:url';
import { threads } from 'express-background-tasks/threads';
import { Piscina } from 'piscina';
import { load, startExpress } from './servers.mjs';
import { order, quantile, rowOf } from './statistics.mjs';

const module = new URL('servers/compute.mjs', import.meta.url);
const cpus = availableParallelism();

export default async function inThreads() {
  return [...(await aServer()), ...(await calls()), ...(await cores())];
}

async function aServer() {
  const pings = { nothing: [], thread: [], loop: [] };
  const throughput = { thread: [], loop: [] };
  const kinds = {
    nothing: 'middleware, no task',
    thread: '25 ms of work in a thread',
    loop: '25 ms of work on the loop',
  };
  for (let round = 0; round < 5; round++) {
    const rates = {};
    for (const kind of Object.keys(kinds)) {
      const server = await startExpress(kinds[kind]);
      try {
        await load(`${server.url}/ping`, 5000);
        await (await fetch(server.url)).text(); // From now on it computes.
        pings[kind].push(quantile(await latencies(`${server.url}/ping`, kind === 'loop' ? 100 : 1000), 0.99));
        const { requests, duration } = await load(`${server.url}/ping`, kind === 'loop' ? 1000 : 10_000);
        rates[kind] = requests.total / duration;
      } finally {
        server.stop();
      }
    }
    for (const kind of Object.keys(throughput)) throughput[kind].push(rates[kind] / rates.nothing);
  }
  const computing = 'while every thread computes';
  return [
    rowOf({ what: `p99 of a ping, ${computing}`, unit: 'ms', goal: '≤ 10', values: pings.thread }),
    rowOf({ what: 'p99 of a ping, the same work on the loop', unit: 'ms', values: pings.loop }),
    rowOf({ what: 'the floor: p99 of a ping, nothing to do', unit: 'ms', values: pings.nothing }),
    rowOf({ what: `requests per second, ${computing}`, against: 'nothing to do', values: throughput.thread }),
    rowOf({
      what: 'requests per second, the same work on the loop',
      against: 'nothing to do',
      values: throughput.loop,
    }),
  ];
}

async function latencies(url, count) {
  const all = [];
  for (let ping = 0; ping < count; ping++) {
    const start = performance.now();
    await (await fetch(url)).text();
    all.push(performance.now() - start);
  }
  return all;
}

/** Of a function that does nothing, one call after the other. */
async function calls() {
  const options = { minThreads: 1, maxThreads: 1, idleTimeout: 30_000 };
  const pool = threads(options);
  const number = pool.task('number', module, { export: 'number' });
  const object = pool.task('object', module, { export: 'object' });
  const bare = new Piscina({ ...options, filename: fileURLToPath(module), atomics: 'disabled', recordTiming: false });
  const contenders = {
    number: () => number(1),
    object: () => object({ width: 800, file: 'a.jpg' }),
    bareNumber: () => bare.run(1, { name: 'number', signal: new AbortController().signal }),
    bareObject: () => bare.run({ width: 800, file: 'a.jpg' }, { name: 'object', signal: new AbortController().signal }),
  };
  // It cannot be stopped.
  contenders.unstoppable = () => bare.run(1, { name: 'number' });
  const names = Object.keys(contenders);
  const times = Object.fromEntries(names.map((name) => [name, []]));
  const busy = [];
  for (const name of names) await perCall(contenders[name], 2000);
  for (let round = 0; round < 15; round++) {
    for (const index of order(names.length, round)) {
      const before = performance.eventLoopUtilization();
      times[names[index]].push(await perCall(contenders[names[index]], 2000));
      if (names[index] === 'object') busy.push((performance.eventLoopUtilization(before).active * 1000) / 2000);
    }
  }
  await pool.close();
  await bare.destroy();
  const more = (kind, than) => times[kind].map((time, round) => time - times[than][round]);
  const ratio = (kind, than) => times[kind].map((time, round) => time / times[than][round]);
  const against = 'bare piscina';
  return [
    rowOf({ what: 'a call, a number there and back', unit: 'µs', values: times.number }),
    rowOf({ what: 'what it takes more', against, unit: 'µs', goal: '≤ 20', values: more('number', 'bareNumber') }),
    rowOf({ what: 'the same call', against, goal: '≤ 1.15', values: ratio('number', 'bareNumber') }),
    rowOf({ what: 'bare piscina with a signal', against: 'without', values: ratio('bareNumber', 'unstoppable') }),
    rowOf({ what: 'a call, a small object there and back', unit: 'µs', values: times.object }),
    rowOf({
      what: 'what the object takes more',
      against,
      unit: 'µs',
      goal: '≤ 20',
      values: more('object', 'bareObject'),
    }),
    rowOf({ what: 'what the object takes of the event loop', unit: 'µs', values: busy }),
  ];
}

/** In µs. */
async function perCall(call, count) {
  const start = performance.now();
  for (let number = 0; number < count; number++) await call();
  return ((performance.now() - start) * 1000) / count;
}

/** Ten tasks of 50 ms for each CPU. */
async function cores() {
  const tasks = 10 * cpus;
  const pools = [1, cpus].map((count) => threads({ minThreads: count, maxThreads: count }));
  const computes = pools.map((pool) => pool.task('compute', module));
  const rates = [[], []];
  for (let round = 0; round < 5; round++) {
    for (const index of order(2, round)) {
      await computes[index](1);
      const start = performance.now();
      await Promise.all(Array.from({ length: tasks }, () => computes[index](5_000_000)));
      rates[index].push(tasks / (performance.now() - start));
    }
  }
  for (const pool of pools) await pool.close();
  const values = rates[1].map((rate, round) => rate / rates[0][round]);
  return [rowOf({ what: `tasks per second on ${cpus} CPUs`, against: 'on one', goal: '≥ 1.6', values })];
}
