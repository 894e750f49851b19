// Finds the tasks that a worker takes next: those whose names it knows, by priority and age.

import { monotonicTime } from '../../clock.js';
import type { Candidate, ReadyTable } from './ready-table.js';

/** A worker with more names than this looks at the first tasks of all names, which is quicker than a statement per name. */
const fewNames = 16;

/** It looks at this many more tasks than it needs, since some may have names that it does not know. */
const spare = 20;

/** The result of asking for each name is kept for this many ms, up to this many tasks. */
const stock = { lifetime: 50, size: 1000 };

export class Candidates {
  readonly #table: ReadyTable;
  readonly #names: readonly string[];
  readonly #known: ReadonlySet<string>;
  #stock: readonly Candidate[] = [];
  #stockedAt = Number.NEGATIVE_INFINITY;
  /** The first task of the stock that has not been taken. */
  #next = 0;

  constructor(table: ReadyTable, names: readonly string[]) {
    this.#table = table;
    this.#names = names;
    this.#known = new Set(names);
  }

  /** Yields at least this many, if there are. A task that was found some ms ago may have been taken in the meantime. */
  *inOrder(limit: number): Generator<Candidate> {
    if (this.#names.length <= fewNames) {
      yield* this.#ask(limit);
      return;
    }
    const first = this.#table.first(limit + spare);
    const known = first.filter(({ name }) => this.#known.has(name));
    yield* known;
    const last = first.at(-1);
    if (last === undefined || first.length < limit + spare || known.length >= limit) return;
    for (const candidate of this.#behindUnknown()) if (compare(candidate, last) > 0) yield candidate;
  }

  isAny(): boolean {
    if (this.#names.length > fewNames) {
      const first = this.#table.first(spare);
      if (first.some(({ name }) => this.#known.has(name))) return true;
      if (first.length < spare) return false;
    }
    return this.#names.some((name) => this.#table.isAnyOf(name));
  }

  /** Used if many tasks of other names come first. Asking for each of 1,000 names takes some ms, so the result is kept. */
  *#behindUnknown(): Generator<Candidate> {
    const isFresh = monotonicTime() < this.#stockedAt + stock.lifetime;
    if (isFresh) yield* this.#fromStock();
    this.#stock = this.#ask(stock.size).slice(0, stock.size);
    this.#stockedAt = monotonicTime();
    this.#next = 0;
    yield* this.#fromStock();
  }

  *#fromStock(): Generator<Candidate> {
    for (let next = this.#stock[this.#next]; next !== undefined; next = this.#stock[this.#next]) {
      yield next;
      this.#next++;
    }
  }

  #ask(limit: number): Candidate[] {
    const candidates = this.#names.flatMap((name) => this.#table.firstOf(name, limit));
    return this.#names.length > 1 ? candidates.sort(compare) : candidates;
  }
}

function compare(a: Candidate, b: Candidate): number {
  return b.priority - a.priority || a.seq - b.seq;
}
