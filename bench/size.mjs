// Measures: the time that importing the core takes, and the size of what an installation brings.
// Against: nothing; Express, which every user has loaded by then, is loaded before the clock starts.
// Fair: a new process per import; the size is that of the packed files and of the dependencies' folders.

import { execFileSync } from 'node:child_process';
import { readdirSync, statSync } from 'node:fs';
import { join } from 'node:path';
import { fileURLToPath } from 'node:url';
import { rowOf } from './statistics.mjs';

const root = fileURLToPath(new URL('..', import.meta.url));
const program =
  "require('express'); const start = performance.now(); require('express-background-tasks'); console.log(performance.now() - start)";

export default function size() {
  const run = (program) => execFileSync(process.execPath, ['-e', program], { cwd: root, encoding: 'utf8' });
  const times = Array.from({ length: 21 }, () => Number(run(program)));
  const [{ unpackedSize }] = JSON.parse(
    execFileSync('npm', ['pack', '--dry-run', '--json', '--ignore-scripts', '--loglevel=error'], {
      cwd: root,
      encoding: 'utf8',
    }),
  );
  const dependencies = ['on-finished', 'ee-first'].map((name) => folderSize(join(root, 'node_modules', name)));
  const kilobytes = [unpackedSize, ...dependencies].reduce((sum, bytes) => sum + bytes, 0) / 1000;
  return [
    rowOf({ what: 'import of the core', unit: 'ms', goal: '≤ 15', values: times }),
    rowOf({ what: 'installed size, with on-finished', unit: 'kB', goal: '≤ 300', values: [kilobytes] }),
  ];
}

function folderSize(folder) {
  return readdirSync(folder, { recursive: true })
    .map((name) => statSync(join(folder, name)))
    .reduce((sum, stat) => sum + (stat.isFile() ? stat.size : 0), 0);
}
