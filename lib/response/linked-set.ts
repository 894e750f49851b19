// A set of objects that hold their own links. An object is in one set at a time. When a Set grows or shrinks it leaves its old
// table behind, which keeps its contents alive until the old generation is collected: with one task per request that took a
// quarter of the CPU time of a request (bench/overhead).

export interface Linkable<T> {
  /** Written by the set that holds the object. */
  newer: T | undefined;
  older: T | undefined;
  isLinked: boolean;
}

export class LinkedSet<T extends Linkable<T>> {
  #newest: T | undefined = undefined;

  /** An object that is already in the set keeps its place. */
  add(value: T): void {
    if (value.isLinked) return;
    value.isLinked = true;
    value.older = this.#newest;
    if (this.#newest !== undefined) this.#newest.newer = value;
    this.#newest = value;
  }

  delete(value: T): void {
    if (!value.isLinked) return;
    const { newer, older } = value;
    if (newer === undefined) this.#newest = older;
    else newer.older = older;
    if (older !== undefined) older.newer = newer;
    value.isLinked = false;
    value.newer = undefined;
    value.older = undefined;
  }

  /** In the order in which they were added. */
  toArray(): T[] {
    const values: T[] = [];
    for (let value = this.#newest; value !== undefined; value = value.older) values.push(value);
    return values.reverse();
  }
}
