// The alert rules and the dashboard in docs/monitoring: they name what the code exports, and nothing else.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Registry } from 'prom-client';
import { backgroundTasks } from '../../lib/index';
import { collectTasks } from '../../lib/prometheus/index';
import { memory } from '../../lib/testing/index';

const docs = join(__dirname, '../../docs');

interface Exported {
  /** The names of the time series, with `_count`, `_sum` and `_bucket` of the histograms. */
  series: Set<string>;
  labels: Map<string, Set<string>>;
}

async function exported(): Promise<Exported> {
  const registry = new Registry();
  const engine = memory();
  const remove = collectTasks(registry, { tasks: backgroundTasks(), engine });
  const series = new Set<string>();
  const labels = new Map<string, Set<string>>();
  for (const metric of registry.getMetricsAsArray() as unknown as { name: string; labelNames: string[] }[]) {
    const { name, labelNames } = metric;
    const names = name.endsWith('_seconds') && labelNames.includes('verb') ? ['_count', '_sum', '_bucket'] : [''];
    for (const suffix of names) {
      series.add(name + suffix);
      labels.set(name + suffix, new Set([...labelNames, 'le']));
    }
  }
  remove();
  await engine.close();
  return { series, labels };
}

/** PromQL's own words and functions do not begin so. */
const ours = /\bbackground_tasks?_\w+/g;

function expressionsOf(file: string): string[] {
  const text = readFileSync(join(docs, 'monitoring', file), 'utf8');
  if (!file.endsWith('.json')) return text.match(/expr: (\|\n(?: {10}.*\n)+|.*)/g) ?? [];
  const { panels, templating } = JSON.parse(text) as {
    panels: { targets: { expr: string }[] }[];
    templating: { list: { query: string | { query: string } }[] };
  };
  const variables = templating.list.flatMap(({ query }) => (typeof query === 'string' ? [] : [query.query]));
  return [...panels.flatMap(({ targets }) => targets.map(({ expr }) => expr)), ...variables];
}

describe.each(['alerts.yml', 'dashboard.json'])('docs/monitoring/%s', (file) => {
  it('names series that are exported', async () => {
    const { series } = await exported();
    const named = expressionsOf(file).flatMap((expression) => expression.match(ours) ?? []);
    expect(named.length).toBeGreaterThan(4);
    expect(named.filter((name) => !series.has(name))).toEqual([]);
  });

  it('names labels that they have', async () => {
    const { labels } = await exported();
    for (const expression of expressionsOf(file)) {
      for (const [, name = '', selector = ''] of expression.matchAll(/\b(background_tasks?_\w+)\{([^}]*)\}/g)) {
        for (const [label] of selector.matchAll(/\w+(?==)/g)) expect([...(labels.get(name) ?? [])]).toContain(label);
      }
      const known = new Set([...labels.values()].flatMap((set) => [...set]));
      for (const [, list = ''] of expression.matchAll(/\bby \(([^)]*)\)/g)) {
        for (const label of list.split(', ')) expect([...known]).toContain(label);
      }
    }
  });
});

it('docs/monitoring.md has a row for each metric', async () => {
  const { series } = await exported();
  const page = readFileSync(join(docs, 'monitoring.md'), 'utf8');
  for (const name of series) expect(page).toContain(`\`${name.replace(/_(count|sum|bucket)$/, '')}\``);
});
