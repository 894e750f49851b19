// Group commit: the writes of one turn of the event loop share a transaction, and thereby a wait for the disk. If there are very
// many, each transaction takes as many as fit into a time slice.

import { AsyncResource } from 'node:async_hooks';
import { monotonicTime, setImmediate, setTimeout } from '../../clock.js';
import type { Connection } from './connection.js';
import { isBusy, TransactionOpen } from './database.js';

export interface Write {
  /** Whether somebody is promised that it survives a power failure. */
  readonly isDurable: boolean;
  /** Runs the statements. If it throws, the transaction is undone with all of its writes. */
  apply(): void;
  /** Must not throw, nor must `failed`. */
  committed(): void;
  /** Called if nothing was written. Returns whether to try again. */
  failed(error: unknown): boolean;
}

/** How long a transaction takes writes, in ms. */
const timeSlice = 5;

/** A transaction after which the files are checked relies on a check before it that is not older than this, in ms. */
const checkValidity = 5;

/** Between tries while the database is locked, in ms. Kept short, because SQLite does not queue those that wait for a lock. */
const longestBusyDelay = 25;

/** Between tries while the database cannot be written for another reason, such as a full disk, in ms. */
const brokenDelay = 250;

export class GroupCommit {
  readonly #connection: Connection;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  readonly #writes = new Set<Write>();
  /** Applied after the others, so that workers see the tasks that were enqueued in the same turn. */
  readonly #last = new Set<Write>();
  /** The writes of both sets that have failed and are to be tried again. */
  readonly #failed = new Set<Write>();
  /** How many writes may share a transaction. It is halved after each failure, until the write that fails is alone. */
  #limit = Number.POSITIVE_INFINITY;
  #isScheduled = false;
  #busyDelay = 0;
  #retryDelay = 0;
  /** When the files were last found to be in order. */
  #checkedAt = Number.NEGATIVE_INFINITY;
  readonly #idleListeners: (() => void)[] = [];

  constructor(connection: Connection) {
    const { database } = connection;
    this.#connection = connection;
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#commit = database.prepare('COMMIT');
    this.#rollback = database.prepare('ROLLBACK');
  }

  add(write: Write): void {
    this.#writes.add(write);
    this.#schedule();
  }

  /** Call it before you read outside of a transaction. Throws if the file is out of reach. */
  ensure(): void {
    this.#connection.ensure();
  }

  /** Applies the write once, after all others. */
  addLast(write: Write): void {
    this.#last.add(write);
    this.#schedule();
  }

  /** Resolves when nothing waits to be written. */
  idle(): Promise<void> {
    return new Promise((resolve) => {
      if (this.#isScheduled) this.#idleListeners.push(resolve);
      else resolve();
    });
  }

  #schedule(): void {
    if (this.#isScheduled) return;
    this.#isScheduled = true;
    setImmediate(this.#flush);
  }

  /** Does not see the AsyncLocalStorage stores of the request whose write came first. */
  readonly #flush = AsyncResource.bind((): void => {
    const sliceEnd = monotonicTime() + timeSlice;
    do this.#write();
    while (this.#limit < Number.POSITIVE_INFINITY && this.#isMoreToTry && monotonicTime() < sliceEnd);
    if (this.#isMoreToTry) {
      setImmediate(this.#flush);
    } else if (this.#failed.size > 0) {
      setTimeout(this.#retry, this.#retryDelay);
    } else {
      this.#isScheduled = false;
      for (const listener of this.#idleListeners.splice(0)) listener();
    }
  });

  readonly #retry = (): void => {
    this.#failed.clear();
    this.#flush();
  };

  get #isMoreToTry(): boolean {
    return this.#writes.size + this.#last.size > this.#failed.size;
  }

  #write(): void {
    const tried: Write[] = [];
    try {
      this.#transaction(tried);
    } catch (error) {
      if (tried.length > 1 && !isBusy(error)) this.#limit = Math.floor(tried.length / 2);
      else if (tried.length === 1) this.#fail(tried, error);
      else this.#fail([...this.#writes, ...this.#last], error);
      return;
    }
    this.#busyDelay = 0;
    this.#end(tried);
    this.#limit = this.#isMoreToTry ? this.#limit * 2 : Number.POSITIVE_INFINITY;
  }

  /** Applies the first of the writes, and adds each to `tried` before. */
  #transaction(tried: Write[]): void {
    const { database } = this.#connection;
    if (database.inTransaction) throw new TransactionOpen();
    const isDurable = this.#isAnyDurable();
    if (!isDurable || monotonicTime() > this.#checkedAt + checkValidity) this.#connection.ensure();
    this.#connection.setDurable(isDurable);
    const sliceEnd = monotonicTime() + timeSlice;
    try {
      this.#begin.run();
      this.#apply(this.#writes, tried, sliceEnd);
      this.#apply(this.#last, tried, Number.POSITIVE_INFINITY);
      this.#commit.run();
    } catch (error) {
      // Otherwise it has not begun, or SQLite has ended it.
      if (database.inTransaction) this.#rollback.run();
      throw error;
    }
  }

  #apply(writes: ReadonlySet<Write>, tried: Write[], end: number): void {
    for (const write of writes) {
      if (tried.length > 0 && (tried.length >= this.#limit || monotonicTime() > end)) return;
      if (this.#failed.has(write)) continue;
      tried.push(write);
      write.apply();
    }
  }

  #isAnyDurable(): boolean {
    for (const { isDurable } of this.#writes) if (isDurable) return true;
    return false;
  }

  /** Called after a commit. Writes what was promised again if it may not be in the file. */
  #end(written: readonly Write[]): void {
    const promised = written.filter(({ isDurable }) => isDurable);
    const fault = promised.length > 0 ? this.#check() : undefined;
    for (const write of written) {
      if (fault !== undefined && write.isDurable) continue;
      this.#remove(write);
      write.committed();
    }
    if (fault === undefined) return;
    this.#fail(promised, fault);
    this.#retryDelay = 0; // The next transaction opens the file again.
  }

  #check(): unknown {
    this.#checkedAt = Number.NEGATIVE_INFINITY;
    try {
      const fault = this.#connection.fault();
      if (fault === undefined) this.#checkedAt = monotonicTime();
      return fault;
    } catch (error) {
      return error;
    }
  }

  #fail(writes: readonly Write[], error: unknown): void {
    for (const write of writes) {
      if (write.failed(error)) this.#failed.add(write);
      else this.#remove(write);
    }
    this.#retryDelay = this.#nextDelay(error);
  }

  #remove(write: Write): void {
    this.#writes.delete(write);
    this.#last.delete(write);
    this.#failed.delete(write);
  }

  /** Doubles while the database is busy, with jitter, so that two processes do not meet again and again. */
  #nextDelay(error: unknown): number {
    if (!isBusy(error)) return brokenDelay;
    this.#busyDelay = Math.min(longestBusyDelay, this.#busyDelay * 2 || 1);
    return this.#busyDelay * (0.5 + Math.random());
  }
}
