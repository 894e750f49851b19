// The memory that a pool shares with its threads. Code that never yields sees no message, but it can look here.

/** Why a call is to end. The numbers are what the shared memory holds. */
export const abortReasons = { none: 0, timeout: 1, cancelled: 2, abandoned: 3 } as const;

/** Each call in a thread has three fields. */
const fields = 3;
const whyField = 0;
const callField = 1;
const threadField = 2;

/** In place of the number of a call. */
const revoked = 0;

export class Slots {
  readonly memory: SharedArrayBuffer;
  readonly #array: Int32Array;

  constructor(memory: SharedArrayBuffer) {
    this.memory = memory;
    this.#array = new Int32Array(memory);
  }

  static for(calls: number): Slots {
    return new Slots(new SharedArrayBuffer(calls * fields * Int32Array.BYTES_PER_ELEMENT));
  }

  /** Gives a slot to a call. */
  take(slot: number, call: number): void {
    Atomics.store(this.#array, slot * fields + whyField, abortReasons.none);
    Atomics.store(this.#array, slot * fields + threadField, 0);
    Atomics.store(this.#array, slot * fields + callField, call);
  }

  /**
   * Called in the thread. Returns whether the call may begin: by now it may be revoked, and the slot another call's. One word decides
   * between begin() and revoke(), and no two calls have the same.
   */
  begin(slot: number, call: number, thread: number): boolean {
    const index = slot * fields + callField;
    if (Atomics.compareExchange(this.#array, index, call, begun(call)) !== (call | 0)) return false;
    Atomics.store(this.#array, slot * fields + threadField, thread);
    return true;
  }

  /** Keeps the call, which has the slot, from beginning. Returns false if it has begun. */
  revoke(slot: number, call: number): boolean {
    return Atomics.compareExchange(this.#array, slot * fields + callField, call, revoked) !== begun(call);
  }

  /** Of the call that has the slot. */
  hasBegun(slot: number, call: number): boolean {
    return Atomics.load(this.#array, slot * fields + callField) === begun(call);
  }

  /** Which thread runs the call that has begun. */
  threadOf(slot: number): number {
    return Atomics.load(this.#array, slot * fields + threadField);
  }

  abort(slot: number, reason: number): void {
    Atomics.store(this.#array, slot * fields + whyField, reason);
    this.wake(slot);
  }

  /** Why the call is to end: one of {@link abortReasons}. */
  reasonOf(slot: number): number {
    return Atomics.load(this.#array, slot * fields + whyField);
  }

  wake(slot: number): void {
    Atomics.notify(this.#array, slot * fields + whyField);
  }

  /** Resolves at the next wake(), or at once if there is a reason already. It keeps no thread alive. */
  async woken(slot: number): Promise<void> {
    await Atomics.waitAsync(this.#array, slot * fields + whyField, abortReasons.none).value;
  }
}

/** What stands in place of the number of a call that has begun. */
function begun(call: number): number {
  return ~call;
}
