// docs/benchmarks.md claims no more than its figures tell.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';

interface Row {
  what: string;
  against: string;
  unit: string;
  goal: string;
  figure: number;
  spread?: [number, number];
}

const root = join(__dirname, '..');
const page = readFileSync(join(root, 'docs/benchmarks.md'), 'utf8');
const results: Record<string, { figures: Row[] }> = JSON.parse(readFileSync(join(root, 'bench/results.json'), 'utf8'));
const rows = Object.entries(results).flatMap(([name, { figures }]) => figures.map((row) => ({ name, ...row })));

it.each(rows)(
  '$name: $what, against $against',
  ({ name, what, against, unit, goal, figure, spread = [figure, figure] }) => {
    const lines = sectionOf(name).filter((line) => line.startsWith(`| ${what} | ${against} |`));
    const verdicts = lines.map((line) =>
      line
        .split(' | ')
        .at(-1)
        ?.replace(/\s*\|$/, ''),
    );
    const [low, high] = spread;
    const limit = Number(goal.replace(/[^\d.]/g, ''));
    const isBelow = high <= limit;
    const isAbove = low >= limit;
    if (goal === '') expect(verdicts).toContain(unit === 'times' && low <= 1 && high >= 1 ? 'no difference' : '');
    else if (isBelow === isAbove) expect(verdicts).toContain('undecided');
    else expect(verdicts).toContain(isBelow === goal.startsWith('≤') ? 'met' : 'missed');
  },
);

/** The lines between the two comments with the name. */
function sectionOf(name: string): string[] {
  const [, section = ''] = page.split(new RegExp(`<!-- /?${name} -->`));
  return section.split('\n');
}
