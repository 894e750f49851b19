// npm run bench: all benchmarks, or those that are named. Prints a table, writes bench/results.json, and from it the tables
// and the charts of docs/benchmarks.md.

import { fork } from 'node:child_process';
import { once } from 'node:events';
import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs';
import { cpus } from 'node:os';
import { fileURLToPath } from 'node:url';
import { chart } from './charts.mjs';
import { verdictOf } from './statistics.mjs';

/** Each is a file beside this one. */
const titles = {
  overhead: 'CPU per request',
  tasks: 'Time per task',
  memory: 'Memory',
  fairness: 'Fairness',
  starlette: 'Requests per second',
  engines: 'Durable tasks',
  threads: 'Threads',
  tracing: 'Tracing',
  size: 'Import and size',
};
const all = Object.keys(titles);
const named = process.argv.slice(2);
const unknown = named.find((name) => !all.includes(name));
if (unknown !== undefined) throw new Error(`no benchmark "${unknown}"; there are ${all.join(', ')}`);

const resultsFile = new URL('results.json', import.meta.url);
const page = new URL('../docs/benchmarks.md', import.meta.url);
const charts = new URL('../docs/charts/', import.meta.url);

const results = existsSync(resultsFile) ? JSON.parse(readFileSync(resultsFile, 'utf8')) : {};
const measured = [];
for (const name of named.length > 0 ? named : all) {
  console.error(`${name} …`);
  const child = fork(fileURLToPath(new URL('measure.mjs', import.meta.url)), [name], { execArgv: ['--expose-gc'] });
  const [figures] = await Promise.race([once(child, 'message'), once(child, 'exit')]);
  if (!Array.isArray(figures)) throw new Error(`the benchmark "${name}" has failed`);
  if (figures.length === 0) continue; // It has said why.
  measured.push(...figures);
  const date = new Date().toISOString().slice(0, 10);
  results[name] = { date, node: process.version, machine: describeMachine(), figures };
  writeFileSync(resultsFile, `${JSON.stringify(results, null, 2)}\n`);
}
console.log(table(measured));
writePage();

/** Puts each benchmark's table, and the name of its chart, between the two comments with its name. */
function writePage() {
  mkdirSync(charts, { recursive: true });
  let text = readFileSync(page, 'utf8');
  for (const [name, { date, node, machine, figures }] of Object.entries(results)) {
    const svg = chart(titles[name], figures);
    const image = svg === undefined ? '' : `![${titles[name]}](charts/${name}.svg)\n\n`;
    if (svg !== undefined) writeFileSync(new URL(`${name}.svg`, charts), svg);
    const section = `${image}${table(figures)}\n\nNode.js ${node.slice(1)}, ${machine}, ${date}.`;
    text = text.replace(
      new RegExp(`(<!-- ${name} -->\n).*?(<!-- /${name} -->)`, 's'),
      (_, start, end) => `${start}\n${section}\n\n${end}`,
    );
  }
  writeFileSync(page, text);
}

function describeMachine() {
  const [cpu] = cpus();
  return `${cpus().length} × ${cpu.model.trim()}, ${process.platform} ${process.arch}`;
}

function table(figures) {
  const rows = figures.map((row) => [
    row.what,
    row.against,
    row.goal,
    `${format(row.figure)} ${row.unit}`,
    row.spread === undefined ? '' : row.spread.map(format).join(' to '),
    verdictOf(row),
  ]);
  const header = ['what', 'against', 'goal', 'figure', 'middle half', ''];
  return [header, header.map(() => '---'), ...rows].map((cells) => `| ${cells.join(' | ')} |`).join('\n');
}

function format(value) {
  return value >= 1000 ? Math.round(value).toLocaleString('en') : value.toPrecision(3);
}
