// A first-in-first-out queue of objects that hold their own link. An object is in one queue at a time. There is no array to grow
// or to compact, so each of 1,000,000 tasks costs as much as each of 10.

export interface Queueable<T> {
  /** Written by the queue that holds the object. */
  next: T | undefined;
}

export class Queue<T extends Queueable<T>> {
  #head: T | undefined;
  #tail: T | undefined;

  get isEmpty(): boolean {
    return this.#head === undefined;
  }

  get first(): T | undefined {
    return this.#head;
  }

  *[Symbol.iterator](): Generator<T, void, void> {
    for (let value = this.#head; value !== undefined; value = value.next) yield value;
  }

  push(value: T): void {
    if (this.#tail === undefined) this.#head = value;
    else this.#tail.next = value;
    this.#tail = value;
  }

  shift(): T | undefined {
    const value = this.#head;
    if (value === undefined) return undefined;
    this.#head = value.next;
    if (this.#head === undefined) this.#tail = undefined;
    // Keeping this object must not keep those behind it.
    value.next = undefined;
    return value;
  }
}
