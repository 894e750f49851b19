// A first-in-first-out queue of objects that carry their own link: no array to grow or to compact, so 1,000,000 tasks cost
// the same per task as 10. An object is in one queue at a time.

export interface Queueable<T> {
  /** Set by the queue that holds the object. */
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
    // Whoever keeps this one must not keep all that followed it.
    value.next = undefined;
    return value;
  }
}
