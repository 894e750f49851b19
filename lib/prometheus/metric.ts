// The metrics of prom-client with their names, which its types keep for themselves.

import { type Aggregator, Counter, Gauge, Histogram, type Metric } from 'prom-client';

export interface Named<M extends Metric = Metric> {
  readonly name: string;
  readonly metric: M;
}

// They are registered all at once, not each where it is made.
const registers: [] = [];

/** `collect` is called by each scrape. `aggregator`: what prom-client makes of the figures of several processes of a cluster. */
export function gauge<L extends string = never>(
  name: string,
  help: string,
  labelNames: L[],
  collect: (gauge: Gauge<L>) => void | Promise<void>,
  aggregator: Aggregator = 'sum',
): Named<Gauge<L>> {
  const metric: Gauge<L> = new Gauge({ name, help, labelNames, registers, aggregator, collect: () => collect(metric) });
  return { name, metric };
}

export function counter<L extends string>(
  name: string,
  help: string,
  labelNames: L[],
  collect: (counter: Counter<L>) => void = () => {},
): Named<Counter<L>> {
  const metric: Counter<L> = new Counter({ name, help, labelNames, registers, collect: () => collect(metric) });
  return { name, metric };
}

export function histogram<L extends string>(
  name: string,
  help: string,
  labelNames: L[],
  buckets: number[],
): Named<Histogram<L>> {
  return { name, metric: new Histogram({ name, help, labelNames, registers, buckets }) };
}
