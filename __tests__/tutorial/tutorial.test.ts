// The tutorial does what it says: a reader who follows it to the letter, in an empty folder and in each language, sees on the
// screen what the pages show.

import { mkdirSync, mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import ts from 'typescript';
import { hasNodeSqlite } from '../../lib/drivers/sqlite/library.js';
import { describeWith } from '../drivers/requirements.js';
import { chromiumRuns, openPage } from '../fixtures/browser.js';
import { install, root, run } from '../fixtures/packed.js';
import { type Page, readPage } from './page.js';
import { type Language, Reader } from './reader.js';

jest.setTimeout(300_000);

const introduction = readPage('README.md');
const pages = readdirSync(join(root, 'docs/tutorial'))
  .filter((name) => /^\d/.test(name))
  .map(readPage);

const [major = 0, minor = 0] = process.versions.node.split('.').map(Number);
const stripsTypes = major > 22 || (major === 22 && minor >= 18);

const languages: Language[] = [
  { name: 'JavaScript', extension: 'js', command: 'node' },
  { name: 'TypeScript, with tsx', extension: 'ts', command: 'tsx' },
  ...(stripsTypes ? [{ name: 'TypeScript, with Node.js alone', extension: 'ts', command: 'node' } as const] : []),
];

/** From the page with SQLite on, a library for it has to run here. */
const needsOf = (page: Page): { node?: number } => (pages.indexOf(page) < 4 ? {} : { node: 22 });

const project = join(mkdtempSync(join(tmpdir(), 'tutorial-')), 'project');

/** Of each page in each language. */
const ends = new Map<string, Promise<unknown>>();
const keyOf = (page: Page, language: Language): string => `${page.title} in ${language.name}`;

beforeAll(async () => {
  await install(project, packagesToInstall());
  writeFileSync(join(project, 'package.json'), '{ "private": true, "type": "module" }');
  // Four readers at a time, since most of what they do is waiting. The last pages take longest.
  const lanes = [0, 1, 2, 3].map(() => Promise.resolve());
  const rounds = pages.toReversed().flatMap((page) => languages.map((language) => ({ page, language })));
  for (const [index, { page, language }] of rounds.entries()) {
    if (major < (needsOf(page).node ?? 0)) continue;
    const end = lanes[index % lanes.length]?.then(() => newProject(page, language).follow(page));
    ends.set(keyOf(page, language), end?.catch((error: unknown) => error) ?? Promise.resolve());
    lanes[index % lanes.length] = end?.catch(() => {}) ?? Promise.resolve();
  }
});

afterAll(async () => {
  await Promise.all(ends.values());
  rmSync(join(project, '..'), { recursive: true, force: true });
});

for (const page of pages) {
  describeWith(needsOf(page), `the page "${page.title}"`, () => {
    it.each(languages)('shows what happens in $name', async (language) => {
      expect(await ends.get(keyOf(page, language))).toBeUndefined();
    });
  });
}

describeWith({ node: 22, program: chromiumRuns }, 'the page of the uploads', () => {
  it('shows in a browser how far an upload is, and its result', async () => {
    const uploads = pages.find(({ steps }) => steps.some((step) => step.kind === 'file' && step.name === 'page.html'));
    if (uploads === undefined) throw new Error('no page has a page.html');
    const language: Language = { name: 'a browser', extension: 'js', command: 'node' };
    await newProject(uploads, language).visit(uploads, async (url) => {
      const { page, errors } = await openPage(url);
      const buffer = Buffer.from('one\ntwo words\nthree\n');
      await page.setInputFiles('input', { name: 'lines.txt', mimeType: 'text/plain', buffer });
      await page.locator('output', { hasText: '3 lines, 4 words' }).waitFor();
      expect(await page.locator('progress[value="100"]').count()).toBe(1);
      expect(errors).toEqual([]);
    });
  });
});

describe('the programs', () => {
  it('type-check', async () => {
    const folder = join(project, 'types');
    mkdirSync(folder);
    for (const [index, page] of pages.entries()) {
      const reader = newReader(join('types', String(index + 1)), { name: '', extension: 'ts', command: '' });
      for (const [name, content] of filesUpTo(page)) reader.write(name, content);
    }
    for (const [name, content] of filesUpTo(introduction)) writeFileSync(join(folder, name), content);
    await run(folder, join(project, 'node_modules/.bin/tsc'));
  });

  it.each(pages)('have something to type and something to see on "$title"', ({ steps }) => {
    const outputs = steps.flatMap((step) => (step.kind === 'command' ? [step.output] : []));
    expect(outputs.filter((output) => output.replaceAll('…', '').trim() !== '')).not.toEqual([]);
  });

  it.each(pages)('are the same in TypeScript and in JavaScript on "$title"', ({ steps }) => {
    const programs = new Map(steps.flatMap((step) => (step.kind === 'file' ? [[step.name, step.content]] : [])));
    const inTypeScript = [...programs].filter(([name]) => name.endsWith('.ts'));
    const inJavaScript = [...programs].filter(([name]) => name.endsWith('.js'));
    expect(inTypeScript.map(([name, code]) => [name.replace(/ts$/, 'js'), withoutTypes(code)])).toEqual(
      inJavaScript.map(([name, code]) => [name, withoutTypes(code)]),
    );
  });
});

/** With what the pages before have left. */
function newProject(page: Page, language: Language): Reader {
  const reader = newReader(keyOf(page, language).replaceAll(/\W+/g, '-'), language);
  for (const [name, content] of filesUpTo(page, false)) reader.write(name, content);
  return reader;
}

function newReader(folder: string, language: Language): Reader {
  mkdirSync(join(project, folder));
  return new Reader(join(project, folder), language);
}

/** What the reader has written on the pages before, in its latest state, and on this one. */
function filesUpTo(page: Page, inclusive = true): Map<string, string> {
  const all = [introduction, ...pages];
  const read = all.slice(0, all.indexOf(page) + (inclusive ? 1 : 0));
  const files = read.flatMap(({ steps }) => steps.flatMap((step) => (step.kind === 'file' ? [step] : [])));
  return new Map(files.map(({ name, content }) => [name, content]));
}

/** By the names that npm gives them. */
function packagesToInstall(): Record<string, string> {
  const names = [introduction, ...pages].flatMap(({ packages }) => packages);
  const others = names.filter((name) => name !== 'express-background-tasks' && name !== 'better-sqlite3');
  if (major >= 22 && !hasNodeSqlite(process.versions.node)) others.push('better-sqlite3');
  return Object.fromEntries(others.map((name) => [name, name]));
}

/** As the compiler prints it, so that spaces and line breaks do not count. */
function withoutTypes(code: string): string {
  const { outputText } = ts.transpileModule(code.replaceAll(".ts'", ".js'"), {
    compilerOptions: { target: ts.ScriptTarget.ESNext, module: ts.ModuleKind.ESNext },
  });
  return outputText;
}
