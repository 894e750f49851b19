// Which of the ready tasks a worker takes first: those whose names it knows, by priority and age.

import { monotonicTime } from '../../clock.js';
import type { Candidate, ReadyTable } from './ready-table.js';

/** Up to so many names are asked for one by one. Where there are more, it is quicker to look at what comes first of all. */
const fewNames = 16;

/** So many more tasks than are wanted are looked at, since some may have names that the worker does not know. */
const spare = 20;

/** What was found by asking for many names is used for so long, in ms, and at most so many tasks of it. */
const stock = { lifetime: 50, size: 1000 };

export class Candidates {
  readonly #table: ReadyTable;
  readonly #names: readonly string[];
  readonly #known: ReadonlySet<string>;
  #stock: readonly Candidate[] = [];
  #stockedAt = Number.NEGATIVE_INFINITY;
  /** The first of the stock that was not taken yet. */
  #next = 0;

  constructor(table: ReadyTable, names: readonly string[]) {
    this.#table = table;
    this.#names = names;
    this.#known = new Set(names);
  }

  /** At least so many, if there are. One that was found some ms ago may have been taken meanwhile. */
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

  /** Behind many tasks of other names. To ask for a thousand names takes some ms, so what is found is kept for a while. */
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
