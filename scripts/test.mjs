// npm test: the linter, the types and the tests beside each other, since the tests wait more than they work. What the
// first two say is printed as a whole. Arguments are Jest's.

import { spawn } from 'node:child_process';
import { once } from 'node:events';
import { text } from 'node:stream/consumers';

const failures = [];
await Promise.all([check('lint'), check('types'), test()]);
if (failures.length > 0) console.error(`failed: ${failures.join(', ')}`);
process.exitCode = failures.length > 0 ? 1 : 0;

/** Runs a script of package.json. */
async function check(script) {
  const program = spawn('npm', ['run', script], { stdio: ['ignore', 'pipe', 'pipe'] });
  const [output, errors, [code]] = await Promise.all([
    text(program.stdout),
    text(program.stderr),
    once(program, 'close'),
  ]);
  if (code === 0) return;
  failures.push(script);
  console.error(output + errors);
}

async function test() {
  const args = ['node_modules/jest/bin/jest.js', '--coverage', ...process.argv.slice(2)];
  const [code] = await once(spawn(process.execPath, args, { stdio: 'inherit' }), 'close');
  if (code !== 0) failures.push('jest');
}
