// npm run bench: all benchmarks, or those that are named. Prints a table and writes bench/results.json.

import { readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';

const all = ['overhead', 'tasks', 'memory', 'fairness', 'starlette', 'size'];
const named = process.argv.slice(2);
const unknown = named.find((name) => !all.includes(name));
if (unknown !== undefined) throw new Error(`no benchmark "${unknown}"; there are ${all.join(', ')}`);

const resultsFile = new URL('results.json', import.meta.url);
const results = readResults();
for (const name of named.length > 0 ? named : all) {
  console.error(`${name} …`);
  const { default: measure } = await import(`./${name}.mjs`);
  const figures = await measure();
  results[name] = {
    date: new Date().toISOString().slice(0, 10),
    node: process.version,
    machine: describeMachine(),
    figures,
  };
  console.log(table(figures));
  writeFileSync(resultsFile, `${JSON.stringify(results, null, 2)}\n`);
  writeFileSync(new URL(`../docs/${chart.file}`, import.meta.url), chart.svg);
}

function readResults() {
  try {
    return JSON.parse(readFileSync(resultsFile, 'utf8'));
  } catch {
    return {};
  }
}

function describeMachine() {
  const [cpu] = cpus();
  return `${cpus().length} × ${cpu.model.trim()}, ${process.platform} ${process.arch}`;
}

function table(figures) {
  const rows = figures.map(({ what, against, unit, goal, figure, spread, met }) => [
    what,
    against,
    goal,
    `${figure.toPrecision(3)} ${unit}`,
    spread === undefined ? '' : spread.map((value) => value.toPrecision(3)).join(' to '),
    met === undefined ? '' : met ? 'met' : 'missed',
  ]);
  const header = ['what', 'against', 'goal', 'figure', 'middle half', ''];
  return [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}
