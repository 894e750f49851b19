// The reference in docs/reference is what TypeDoc makes of the doc comments of today.

import { mkdtempSync, readdirSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { root, run } from './fixtures/packed.js';

const committed = join(root, 'docs/reference');
let made: string;

const read = (folder: string) =>
  Object.fromEntries(readdirSync(folder).map((name) => [name, readFileSync(join(folder, name), 'utf8')]));

beforeAll(async () => {
  made = mkdtempSync(join(tmpdir(), 'background-tasks-reference-'));
  await run(root, process.execPath, 'node_modules/typedoc/bin/typedoc', '--out', made);
}, 120_000);

afterAll(() => rmSync(made, { recursive: true }));

it('the reference is up to date: `npm run reference` writes it', () => {
  expect(read(committed)).toEqual(read(made));
});

it('has a page for each entry point, which says what it is for', () => {
  const { exports } = JSON.parse(readFileSync(join(root, 'package.json'), 'utf8')) as { exports: object };
  const names = Object.keys(exports).filter((name) => name !== './package.json');
  const titles = Object.values(read(committed)).map((page) => page.match(/^# (.*)\n\n(?=[A-Z])/)?.[1]);
  expect(titles.filter((title) => title !== undefined && title !== 'Reference').sort()).toEqual(
    names.map((name) => name.replace(/^\./, 'express-background-tasks')).sort(),
  );
});
