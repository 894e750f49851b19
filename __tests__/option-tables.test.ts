// The tables of options in the docs, beside the doc comments: the same options, with the same defaults.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import ts from 'typescript';

const root = join(__dirname, '..');
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

/** By option. Undefined where there is no default. */
type Defaults = Record<string, string | undefined>;

it.each([
  ['docs/guide.md', 'logger', 'lib/middleware.ts', ['BackgroundTasksOptions']],
  ['docs/guide.md', 'delay', 'lib/task/options.ts', ['TaskOptions']],
  ['docs/engines.md', 'lease', 'lib/drivers/sqlite/index.ts', ['SqliteFileOptions', 'SqliteTimes']],
  ['docs/engines.md', 'connection', 'lib/drivers/bullmq/index.ts', ['BullmqOptions']],
  ['docs/celery.md', 'broker', 'lib/drivers/celery/index.ts', ['CeleryOptions']],
  ['docs/monitoring.md', 'links', 'lib/opentelemetry/instrumentation.ts', ['InstrumentationConfig']],
  ['docs/production.md', 'onClose', 'lib/shutdown/graceful-shutdown.ts', ['ShutdownOptions']],
  ['docs/routes.md', 'maxLag', 'lib/http/task-health.ts', ['HealthOptions']],
  ['docs/threads.md', 'maxThreads', 'lib/threads/threads.ts', ['ThreadOptions']],
  ['docs/schedules.md', 'cron', 'lib/engine/engine.ts', ['ScheduleOptions']],
])('%s, the table with "%s": the options of %s, %s', (page, option, file, types) => {
  expect(inTable(read(page), option)).toEqual(inComments(file, types));
});

/** Of the table that has the option. A row may be of several. */
function inTable(markdown: string, option: string): Defaults {
  const tables = markdown.match(/(?:^\|.*\n)+/gm) ?? [];
  const table = tables.find((text) => text.includes(`\n| \`${option}\` |`)) ?? '';
  const [head = [], , ...rows] = table.trim().split('\n').map(cellsOf);
  const column = head.indexOf('default');
  return Object.fromEntries(
    rows.flatMap((cells) => {
      const told = defaultIn(cells.join(' | ')) ?? normalized(cells[column]);
      return [...(cells[0] ?? '').matchAll(/`(\w+)`/g)].map(([, name = '']) => [name, told]);
    }),
  );
}

function cellsOf(row: string): string[] {
  return row
    .slice(1, -1)
    .split('|')
    .map((cell) => cell.trim());
}

function inComments(file: string, types: string[]): Defaults {
  const source = ts.createSourceFile(file, read(file), ts.ScriptTarget.Latest, true);
  const interfaces = source.statements
    .filter(ts.isInterfaceDeclaration)
    .filter(({ name }) => types.includes(name.text));
  expect(interfaces).toHaveLength(types.length);
  return Object.fromEntries(
    interfaces
      .flatMap(({ members }) => [...members])
      .map((member) => {
        const comments = ts.getJSDocCommentsAndTags(member).map(({ comment }) => ts.getTextOfJSDocComment(comment));
        return [member.name?.getText() ?? '', defaultIn(comments.join(' '))];
      }),
  );
}

function defaultIn(text: string): string | undefined {
  const before = /[`(]?(\w+)`?, the default\b/.exec(text)?.[1];
  return normalized(before ?? /\b[Dd]efault:? ([^.,:|]+(?:\.\d[^.,:|]*)?)/.exec(text)?.[1]);
}

/** As it is compared: without marks, units, and the words for "none". */
function normalized(text = ''): string | undefined {
  const value = text.replace(/[`'"]|(?<=\d),(?=\d{3})| ms\b/g, '').trim();
  return ['', '–', 'none', 'nothing', 'no limit'].includes(value) ? undefined : value.toLowerCase();
}
