// What users see: the packed tarball, installed by npm into real small projects. Each must run the README's example as it
// is written there. The folders beside this file are the projects.

import { execFile } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { dirname, join, relative } from 'node:path';
import { promisify } from 'node:util';

// npm and tsc may share the machine with other work.
const timeout = 120_000;
jest.setTimeout(2.5 * timeout);

const root = join(__dirname, '../..');
const temp = mkdtempSync(join(tmpdir(), 'project-setups-'));
let tarball: string;

const example = firstExampleOf(readFileSync(join(root, 'README.md'), 'utf8'));

const exampleOutput = [
  'sent; logged: nothing',
  'answer: 200 {"message":"Notification sent in the background"}',
  'logged: notification for ann@example.com: some notification',
];

beforeAll(async () => {
  tarball = await pack();
  await Promise.all([
    install('alone', {}, '--legacy-peer-deps'),
    install('express-5', { express: 'express', '@types/express': '@types/express', '@types/node': '@types/node' }),
    install('express-4', { express: 'express4', '@types/express': 'types-express4', '@types/node': '@types/node' }),
  ]);
});

afterAll(() => rmSync(temp, { recursive: true, force: true }));

describe('the package', () => {
  it('has one dependency, on-finished, and express as a peer', () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = readJson(installed('package.json'));
    expect(Object.keys(dependencies ?? {})).toEqual(['on-finished']);
    expect(Object.keys(peerDependencies ?? {}).filter((name) => !peerDependenciesMeta?.[name]?.optional)).toEqual([
      'express',
    ]);
    const packages = readdirSync(join(temp, 'alone/node_modules')).filter((name) => !name.startsWith('.'));
    expect(packages).toEqual(['ee-first', 'express-background-tasks', 'on-finished']);
  });

  it('loads without express: its users import that themselves', async () => {
    await run(join(temp, 'alone'), process.execPath, '--eval', 'require("express-background-tasks")');
  });

  it('holds the build, the licence, the example and what to read, and nothing else', () => {
    const files = filesIn(installed());
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md', 'dist/index.mjs']));
    const expected = [
      /^(LICENSE|(README|CHANGELOG)\.md|package\.json)$/,
      /^dist\/[\w/-]+\.m?(js|d\.m?ts)$/,
      /^docs\/([\w-]+\.(md|png)|charts\/\w+\.svg)$/,
      /^example\/[\w-]+\.(ts|html)$/,
    ];
    expect(files.filter((file) => !expected.some((pattern) => pattern.test(file)))).toEqual([]);
  });

  it('has all that its pages link to', () => {
    const pages = filesIn(installed()).filter((file) => file.endsWith('.md'));
    const links = pages.flatMap((page) =>
      findAll(installed(page), /\]\((?!https?:)([^)#]+)/g).map((to) => ({ page, to: join(dirname(page), to) })),
    );
    expect(links).toContainEqual({ page: 'README.md', to: 'docs/guide.md' });
    expect(links).toContainEqual({ page: 'docs/production.md', to: 'example/server.ts' });
    expect(links.filter(({ to }) => !isInstalled(to))).toEqual([]);
  });

  it('has all pages that its doc comments name', () => {
    const sources = filesIn(join(root, 'lib'));
    const pages = sources.flatMap((source) =>
      findAll(join(root, 'lib', source), /([\w./-]+\.md)\b/g).map((page) => ({ source, page })),
    );
    expect(pages).toContainEqual({ source: 'errors.ts', page: 'docs/errors.md' });
    expect(pages.filter(({ page }) => !isInstalled(page))).toEqual([]);
  });

  it('has an example that imports nothing else of the repository', () => {
    const programs = filesIn(installed('example')).map((name) => join('example', name));
    const imports = programs.flatMap((program) =>
      findAll(installed(program), /(?:from |import\()'(\.[^']*)\.js'/g).map((from) => ({
        program,
        file: `${join('example', from)}.ts`,
      })),
    );
    expect(imports).toContainEqual({ program: 'example/server.ts', file: 'example/app.ts' });
    expect(imports.filter(({ file }) => !isInstalled(file))).toEqual([]);
  });
});

describe.each(['express-5', 'express-4'])('with %s', (express) => {
  it('runs the example of the README in CommonJS', async () => {
    const project = create(express, 'commonjs');
    writeFileSync(join(project, 'app.js'), inCommonJs(example));
    expect(await runExample(project)).toEqual(exampleOutput);
  });

  it('runs the example of the README in an ES module', async () => {
    const project = create(express, 'esm');
    writeFileSync(join(project, 'app.js'), example);
    expect(await runExample(project)).toEqual(exampleOutput);
  });

  it('is one implementation for import and require()', async () => {
    const { stdout } = await run(create(express, 'esm'), process.execPath, 'both-systems.js');
    expect(stdout.trim().split('\n').sort()).toEqual([
      'same names: true',
      'same values: true',
      'task "anonymous" is "anonymous"',
    ]);
  });
});

describe.each([
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
    const project = create(express, setup);
    writeFileSync(join(project, 'app.ts'), example);
    for (const name of ['api.ts', 'enqueue.ts', 'functions.ts']) {
      cpSync(join(root, '__tests__/types', name), join(project, name));
    }
    await run(project, process.execPath, join(root, 'node_modules', typescript, 'bin/tsc'));
    expect(await runExample(project)).toEqual(exampleOutput);
  });
});

/** Packs a copy of the sources, since the build empties dist/, which others may be using. */
async function pack(): Promise<string> {
  const copy = join(temp, 'source');
  for (const name of ['lib', 'scripts', 'docs', 'example', 'package.json']) copyToSource(name);
  for (const name of ['tsconfig.json', 'tsconfig.build.json']) copyToSource(name);
  for (const name of ['README.md', 'CHANGELOG.md', 'LICENSE']) copyToSource(name);
  symlinkSync(join(root, 'node_modules'), join(copy, 'node_modules'));
  await run(copy, 'npm', 'pack', '--pack-destination', temp);
  const file = readdirSync(temp).find((name) => name.endsWith('.tgz'));
  if (file === undefined) throw new Error('npm pack made no tarball');
  return join(temp, file);

  function copyToSource(name: string): void {
    cpSync(join(root, name), join(copy, name), { recursive: true });
  }
}

/** The versions that this repository has installed itself, so that npm finds them in its cache. */
async function install(into: string, packages: Record<string, string>, ...flags: string[]): Promise<void> {
  const folder = join(temp, into);
  mkdirSync(folder);
  writeFileSync(join(folder, 'package.json'), '{ "private": true }');
  const wanted = Object.entries(packages).map(
    ([name, alias]) => `${name}@${readJson(join(root, 'node_modules', alias, 'package.json')).version}`,
  );
  const quiet = ['--prefer-offline', '--no-audit', '--no-fund'];
  await run(folder, 'npm', 'install', ...quiet, ...flags, tarball, ...wanted);
}

function create(express: string, setup: string): string {
  const project = mkdtempSync(join(temp, express, `${setup}-`));
  cpSync(join(__dirname, setup), project, { recursive: true });
  return project;
}

async function runExample(project: string): Promise<string[]> {
  const { stdout } = await run(project, process.execPath, '--require', join(__dirname, 'drive.cjs'), 'app.js');
  return stdout.trim().split('\n');
}

/** Rejects with all that the program said if it fails. */
async function run(cwd: string, command: string, ...args: string[]): Promise<{ stdout: string }> {
  // npm hands its settings on to the scripts that it runs; a npm inside of it must not take them for its own.
  const env = Object.fromEntries(Object.entries(process.env).filter(([name]) => !/^npm_/i.test(name)));
  try {
    return await promisify(execFile)(command, args, { cwd, env, timeout });
  } catch (error) {
    const { message, stdout = '', stderr = '' } = error as Error & { stdout?: string; stderr?: string };
    throw new Error(`${message}\n${stdout}\n${stderr}`, { cause: error });
  }
}

interface Manifest {
  version: string;
  dependencies?: Record<string, string>;
  peerDependencies?: Record<string, string>;
  peerDependenciesMeta?: Record<string, { optional?: boolean }>;
}

function readJson(file: string): Manifest {
  return JSON.parse(readFileSync(file, 'utf8')) as Manifest;
}

function installed(file = ''): string {
  return join(temp, 'alone/node_modules/express-background-tasks', file);
}

function isInstalled(file: string): boolean {
  return !file.startsWith('..') && existsSync(installed(file));
}

/** Also those in its folders; as paths from here. */
function filesIn(folder: string): string[] {
  return readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((file) => file.isFile())
    .map((file) => relative(folder, join(file.parentPath, file.name)));
}

/** What the first group of a pattern stands for. */
function findAll(file: string, pattern: RegExp): string[] {
  return [...readFileSync(file, 'utf8').matchAll(pattern)].map(([, found = '']) => found);
}

function firstExampleOf(markdown: string): string {
  const code = /^```ts\n(.*?)^```$/ms.exec(markdown)?.[1];
  if (code === undefined) throw new Error('the README has no example in TypeScript');
  return code;
}

function inCommonJs(code: string): string {
  return code.replace(/^import (.+) from (.+);$/gm, 'const $1 = require($2);');
}
