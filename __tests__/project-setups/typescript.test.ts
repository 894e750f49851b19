// The projects in TypeScript: each compiler compiles the README's example and the type tests against the packed tarball.

import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, timeout } from '../fixtures/packed.js';
import { example, exampleOutput, type Installed, Projects, runExample } from './projects.js';

jest.setTimeout(2.5 * timeout);

const projects = new Projects();

beforeAll(() => projects.install('express-5', 'express-4'));

afterAll(() => projects.remove());

describe.each<[Installed, string, string]>([
  ['express-5', 'typescript5', 'typescript-commonjs'],
  ['express-5', 'typescript5', 'typescript-esm'],
  ['express-5', 'typescript5', 'typescript-node10'], // Deprecated in TypeScript 6 and gone from 7.
  ['express-5', 'typescript', 'typescript-commonjs'],
  ['express-5', 'typescript', 'typescript-esm'],
  ['express-5', 'typescript7', 'typescript-commonjs'],
  ['express-5', 'typescript7', 'typescript-esm'],
  ['express-5', 'typescript7', 'typescript-bundler'],
  ['express-4', 'typescript5', 'typescript-commonjs'],
  ['express-4', 'typescript', 'typescript-commonjs'],
  ['express-4', 'typescript7', 'typescript-commonjs'],
])('with %s, %s and %s', (express, typescript, setup) => {
  it('compiles the example of the README and the type tests, and runs the example', async () => {
    const project = projects.create(express, setup);
    writeFileSync(join(project, 'app.ts'), example);
    for (const name of ['api.ts', 'enqueue.ts', 'functions.ts', 'threads.ts']) {
      cpSync(join(root, '__tests__/types', name), join(project, name));
    }
    const compiler = join(root, 'node_modules', typescript, 'bin/tsc');
    // Our declarations are checked once by each compiler: the other setups differ in how they find them. Version 7 is quick.
    const isFirst = express === 'express-5' && setup === 'typescript-commonjs';
    const checksAll = isFirst || typescript === 'typescript7';
    await run(project, process.execPath, compiler, '--skipLibCheck', String(!checksAll));
    expect(await runExample(project)).toEqual(exampleOutput);
  });
});
