// Group commit: all writes of one turn of the event loop share one transaction, and so one wait for the disk.

import { AsyncResource } from 'node:async_hooks';
import { setImmediate, setTimeout } from '../../clock.js';
import type { Connection } from './connection.js';
import { FilesLost, isBusy, TransactionOpen } from './database.js';

export interface Write {
  /** Somebody is promised that it survives a loss of power. */
  readonly isDurable: boolean;
  /** Runs the statements. What it throws undoes the transaction, with all writes in it. */
  apply(): void;
  /** Like `failed` it must not throw. */
  committed(): void;
  /** Nothing was written. Returns true to be tried again. */
  failed(error: unknown): boolean;
}

/** Between tries while the database is locked, in ms. No longer: who waits for a lock of SQLite is in no queue. */
const longestBusyDelay = 25;

/** Between tries while the database cannot be written for another reason, a full disk say, in ms. */
const brokenDelay = 250;

export class GroupCommit {
  readonly #connection: Connection;
  readonly #begin;
  readonly #commit;
  readonly #rollback;
  #writes: Write[] = [];
  /** Applied after the others: what takes tasks shall see those that were enqueued in the same turn. */
  readonly #last = new Set<Write>();
  #isScheduled = false;
  #busyDelay = 0;
  readonly #idleListeners: (() => void)[] = [];

  constructor(connection: Connection) {
    const { database } = connection;
    this.#connection = connection;
    this.#begin = database.prepare('BEGIN IMMEDIATE');
    this.#commit = database.prepare('COMMIT');
    this.#rollback = database.prepare('ROLLBACK');
  }

  add(write: Write): void {
    this.#writes.push(write);
    this.#schedule();
  }

  /** To be called before what is read outside of a transaction. Throws where it would not be what is stored. */
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

  /** Without the AsyncLocalStorage stores of the request whose write came first in its turn. */
  readonly #flush = AsyncResource.bind((): void => {
    const writes = this.#writes;
    const last = [...this.#last];
    this.#writes = [];
    this.#last.clear();
    const retryDelay = this.#write(writes, last);
    if (retryDelay !== undefined) {
      setTimeout(this.#flush, retryDelay);
    } else if (this.#writes.length + this.#last.size > 0) {
      setImmediate(this.#flush);
    } else {
      this.#isScheduled = false;
      for (const listener of this.#idleListeners.splice(0)) listener();
    }
  });

  /** Returns in how many ms to try again where that is to be done. */
  #write(writes: readonly Write[], last: readonly Write[]): number | undefined {
    const all = [...writes, ...last];
    try {
      this.#transaction(all);
    } catch (error) {
      return isBusy(error) || error instanceof FilesLost || all.length <= 1
        ? this.#keep(writes, last, error)
        : this.#writeEach(writes, last);
    }
    this.#busyDelay = 0;
    const promised = all.filter(({ isDurable }) => isDurable);
    const fault = promised.length > 0 ? this.#connection.fault() : undefined;
    for (const write of all) if (fault === undefined || !write.isDurable) write.committed();
    return fault === undefined ? undefined : this.#keep(promised, [], fault);
  }

  /** What cannot be written shall not keep the others from it. */
  #writeEach(writes: readonly Write[], last: readonly Write[]): number | undefined {
    let retryDelay: number | undefined;
    for (const write of writes) retryDelay = this.#write([write], []) ?? retryDelay;
    for (const write of last) retryDelay = this.#write([], [write]) ?? retryDelay;
    return retryDelay;
  }

  #keep(writes: readonly Write[], last: readonly Write[], error: unknown): number | undefined {
    const kept = writes.filter((write) => write.failed(error));
    const keptLast = last.filter((write) => write.failed(error));
    this.#writes.push(...kept);
    for (const write of keptLast) this.#last.add(write);
    return kept.length + keptLast.length > 0 ? this.#retryDelay(error) : undefined;
  }

  #transaction(writes: readonly Write[]): void {
    const { database } = this.#connection;
    if (database.inTransaction) throw new TransactionOpen();
    this.#connection.ensure();
    try {
      this.#connection.setDurable(writes.some(({ isDurable }) => isDurable));
      this.#begin.run();
      for (const write of writes) write.apply();
      this.#commit.run();
    } catch (error) {
      // If not, it never began, or SQLite has ended it itself.
      if (database.inTransaction) this.#rollback.run();
      throw error;
    }
  }

  /** Doubles, with some chance in it so that two processes do not meet again and again. */
  #retryDelay(error: unknown): number {
    if (!isBusy(error)) return brokenDelay;
    this.#busyDelay = Math.min(longestBusyDelay, this.#busyDelay * 2 || 1);
    return this.#busyDelay * (0.5 + Math.random());
  }
}
