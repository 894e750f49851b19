// What users see: the packed tarball, installed by npm into real small projects. Each must run the README's example as it
// is written there. The folders beside this file are the projects; those in TypeScript are compiled by typescript.test.ts.

import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { dirname, join } from 'node:path';
import { filesIn, install, readManifest, root, run, timeout } from '../fixtures/packed.js';
import { example, exampleOutput, Projects, runExample } from './projects.js';

jest.setTimeout(2.5 * timeout);

const projects = new Projects();
const alone = join(projects.folder, 'alone');

beforeAll(async () => {
  await Promise.all([install(alone, {}, '--legacy-peer-deps'), projects.install('express-5', 'express-4', 'threads')]);
});

afterAll(() => projects.remove());

describe('the package', () => {
  it('has one dependency, on-finished, and express as a peer', () => {
    const { dependencies, peerDependencies, peerDependenciesMeta } = readManifest(installed());
    expect(Object.keys(dependencies ?? {})).toEqual(['on-finished']);
    expect(Object.keys(peerDependencies ?? {}).filter((name) => !peerDependenciesMeta?.[name]?.optional)).toEqual([
      'express',
    ]);
    const packages = readdirSync(join(alone, 'node_modules')).filter((name) => !name.startsWith('.'));
    expect(packages).toEqual(['ee-first', 'express-background-tasks', 'on-finished']);
  });

  it('loads without express: its users import that themselves', async () => {
    await run(alone, process.execPath, '--eval', 'require("express-background-tasks")');
  });

  it('holds the build, the licence, the example and what to read, and nothing else', () => {
    const files = filesIn(installed());
    expect(files).toEqual(expect.arrayContaining(['LICENSE', 'README.md', 'CHANGELOG.md', 'dist/index.mjs']));
    const expected = [
      /^(LICENSE|(README|CHANGELOG|CONTRIBUTING|SECURITY)\.md|package\.json)$/,
      /^dist\/[\w/-]+\.m?(js|d\.m?ts)$/,
      /^docs\/(((how-to|reference|tutorial)\/)?[\w-]+\.(md|png)|charts\/\w+\.svg|monitoring\/\w+\.(yml|json))$/,
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

describe.each(['express-5', 'express-4'] as const)('with %s', (express) => {
  it('runs the example of the README in CommonJS', async () => {
    const project = projects.create(express, 'commonjs');
    writeFileSync(join(project, 'app.js'), inCommonJs(example));
    expect(await runExample(project)).toEqual(exampleOutput);
  });

  it('runs the example of the README in an ES module', async () => {
    const project = projects.create(express, 'esm');
    writeFileSync(join(project, 'app.js'), example);
    expect(await runExample(project)).toEqual(exampleOutput);
  });

  it('is one implementation for import and require()', async () => {
    const { stdout } = await run(projects.create(express, 'esm'), process.execPath, 'both-systems.js');
    expect(stdout.trim().split('\n').sort()).toEqual([
      'same names: true',
      'same values: true',
      'task "anonymous" is "anonymous"',
    ]);
  });
});

describe('threads', () => {
  const loaders = { tsx: ['--import', join(root, 'node_modules/tsx/dist/loader.mjs')], 'Node.js alone': [] };
  const stripsTypes = atLeast(22, 18);
  const modules = ['work.mjs', 'work.cjs'];
  const typed = [...modules, 'typed.js']; // There is typed.ts only.
  const typedCommonJs = ['../work.mjs', '../work.cjs', '../typed.js', 'typed.js'];
  const programs: [program: string, loader: keyof typeof loaders, works: string[]][] = [
    ['app.mjs', 'Node.js alone', modules],
    ['app.cjs', 'Node.js alone', modules],
    ['app.ts', 'tsx', typed],
    ['commonjs/app.ts', 'tsx', typedCommonJs],
  ];
  if (stripsTypes) {
    programs.push(['app.ts', 'Node.js alone', typed], ['commonjs/app.ts', 'Node.js alone', typedCommonJs]);
  }

  it.each(programs)(
    'run the functions of every kind of module in %s, loaded by %s, and they know their task: %p',
    async (program, loader, works) => {
      const project = projects.create('threads', 'threads');
      const { stdout } = await run(project, process.execPath, ...loaders[loader], program, ...works);
      const value = { argument: 'a.jpg', task: 'work', attempt: 1, aborted: false };
      expect(
        stdout
          .trim()
          .split('\n')
          .map((line) => JSON.parse(line)),
      ).toEqual(works.map((work) => ({ work, status: 'succeeded', value })));
    },
  );
});

function atLeast(major: number, minor: number): boolean {
  const [ourMajor = 0, ourMinor = 0] = process.versions.node.split('.').map(Number);
  return ourMajor > major || (ourMajor === major && ourMinor >= minor);
}

function installed(file = ''): string {
  return join(alone, 'node_modules/express-background-tasks', file);
}

function isInstalled(file: string): boolean {
  return !file.startsWith('..') && existsSync(installed(file));
}

/** What the first group of a pattern stands for. */
function findAll(file: string, pattern: RegExp): string[] {
  return [...readFileSync(file, 'utf8').matchAll(pattern)].map(([, found = '']) => found);
}

function inCommonJs(code: string): string {
  return code.replace(/^import (.+) from (.+);$/gm, 'const $1 = require($2);');
}
