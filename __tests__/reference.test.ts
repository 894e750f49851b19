// The reference in docs/reference. That it is what TypeDoc makes of the doc comments of today is checked by .ci/run.

import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';
import { readManifest, root } from './fixtures/packed.js';

const folder = join(root, 'docs/reference');

it('has a page for each entry point, which says what it is for', () => {
  const names = Object.keys(readManifest(root).exports ?? {}).filter((name) => name !== './package.json');
  const pages = readdirSync(folder).filter((name) => name !== 'README.md');
  const titles = pages.map((name) => readFileSync(join(folder, name), 'utf8').match(/^# (.*)\n\n(?=[A-Z])/)?.[1]);
  expect(titles.toSorted()).toEqual(names.map((name) => name.replace('.', 'express-background-tasks')).toSorted());
});
