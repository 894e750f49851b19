// The table of docs/mutation.md: node scripts/mutation-table.mjs [report.json ...]. `npm run mutation` writes the report, and
// `--jsonReporter.fileName` gives it another name where the files are mutated in several runs.

import { readFileSync } from 'node:fs';
import { argv } from 'node:process';

const files = argv.length > 2 ? argv.slice(2) : ['reports/mutation/mutation.json'];
const statuses = ['Killed', 'Timeout', 'Survived', 'NoCoverage'];
const rows = new Map();

for (const file of files) {
  const report = JSON.parse(readFileSync(file, 'utf8'));
  for (const [path, { mutants }] of Object.entries(report.files)) {
    for (const row of [/^lib\/(.+\/)?/.exec(path)[1] ?? 'the files beside the folders', 'all of these']) {
      const counts = rows.get(row) ?? Object.fromEntries(statuses.map((status) => [status, 0]));
      rows.set(row, counts);
      // Some tests load a module anew. Of code that runs at that time only, they are the only ones that Stryker runs.
      for (const { status, static: isStatic } of mutants) if (!isStatic && status in counts) counts[status]++;
    }
  }
}

console.log('| | mutants | killed | by a time limit | survived | not reached | score |');
console.log('|---|---|---|---|---|---|---|');
for (const [row, { Killed, Timeout, Survived, NoCoverage }] of [...rows].sort(([a], [b]) => order(a) - order(b))) {
  const all = Killed + Timeout + Survived + NoCoverage;
  const score = (((Killed + Timeout) / all) * 100).toFixed(1);
  console.log(`| ${row} | ${all} | ${Killed} | ${Timeout} | ${Survived} | ${NoCoverage} | ${score} % |`);
}

function order(row) {
  return ['response/', 'task/', 'engine/', 'http/', 'testing/', 'the files beside the folders', 'all of these'].indexOf(
    row,
  );
}
