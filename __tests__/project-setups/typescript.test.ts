// The projects in TypeScript: each compiler compiles the README's example and the type tests against the packed tarball.

import { cpSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { root, run, timeout } from '../fixtures/packed.js';
import { example, exampleOutput, type Installed, Projects, runExample } from './projects.js';

jest.setTimeout(2.5 * timeout);

const projects = new Projects();

beforeAll(() => projects.install('express-5', 'express-4'));

afterAll(() => projects.remove());

const setups: [Installed, compiler: string, setup: string][] = [
  ['express-5', 'typescript5', 'typescript-commonjs'],
  ['express-5', 'typescript5', 'typescript-esm'],
  ['express-5', 'typescript5', 'typescript-node10'], // Deprecated in TypeScript 6 and gone from 7.
  ['express-4', 'typescript5', 'typescript-commonjs'],
  ['express-5', 'typescript', 'typescript-commonjs'],
  ['express-5', 'typescript', 'typescript-esm'],
  ['express-4', 'typescript', 'typescript-commonjs'],
  ['express-5', 'typescript7', 'typescript-commonjs'],
  ['express-5', 'typescript7', 'typescript-esm'],
  ['express-5', 'typescript7', 'typescript-bundler'],
  ['express-4', 'typescript7', 'typescript-commonjs'],
];

describe.each(['typescript5', 'typescript', 'typescript7'])('with %s', (compiler) => {
  const folders = new Map<string, string>();
  let messages: Record<string, string[]>;
  const own = setups.filter(([, other]) => other === compiler);

  beforeAll(async () => {
    for (const [express, , setup] of own) folders.set(`${express} ${setup}`, create(express, setup));
    messages = await (compiler === 'typescript7' ? compileByProgram : compileByLibrary)(compiler, [
      ...folders.values(),
    ]);
  });

  it.each(own)(
    '%s, %s and %s compile the example and the type tests, and the example runs',
    async (express, _, setup) => {
      const project = folders.get(`${express} ${setup}`) ?? '';
      expect(messages[project]).toEqual([]);
      expect(await runExample(project)).toEqual(exampleOutput);
    },
  );
});

function create(express: Installed, setup: string): string {
  const project = projects.create(express, setup);
  writeFileSync(join(project, 'app.ts'), example);
  for (const name of ['api.ts', 'enqueue.ts', 'functions.ts', 'threads.ts']) {
    cpSync(join(root, '__tests__/types', name), join(project, name));
  }
  return project;
}

/** What the compiler says of each project. */
async function compileByLibrary(compiler: string, folders: string[]): Promise<Record<string, string[]>> {
  const library = join(root, 'node_modules', compiler);
  const { stdout } = await run(projects.folder, process.execPath, join(__dirname, 'compile.cjs'), library, ...folders);
  return JSON.parse(stdout);
}

/** Version 7 is a program, and so quick that it may check the declarations of Node.js and Express as well. */
async function compileByProgram(compiler: string, folders: string[]): Promise<Record<string, string[]>> {
  const program = join(root, 'node_modules', compiler, 'bin/tsc');
  for (const folder of folders) await run(folder, process.execPath, program); // Rejects with what it says.
  return Object.fromEntries(folders.map((folder) => [folder, []]));
}
