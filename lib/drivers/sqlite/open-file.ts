// A file that SQLite has open in this process. Tells whether its name still leads to it and whether it is still locked.

import { fstatSync, readdirSync, statSync } from 'node:fs';
import { FileLock } from './file-lock.js';

/** The devices on which a lock was seen. On others, the absence of a lock means nothing: the system may not show locks. */
const devicesWithLocks = new Set<number>();

export class OpenFile {
  readonly name: string;
  readonly #device: number | undefined;
  readonly #inode: number | undefined;
  readonly #lockedByte: number | undefined;
  #lock: FileLock | undefined = undefined;

  /** Takes the file that has this name now. `lockedByte` is the one that SQLite keeps locked. */
  constructor(name: string, lockedByte?: number) {
    this.name = name;
    const stats = statSync(name, { throwIfNoEntry: false });
    this.#device = stats?.dev;
    this.#inode = stats?.ino;
    this.#lockedByte = lockedByte;
    this.#lock = this.#findLock();
    if (stats !== undefined && this.#lock !== undefined) devicesWithLocks.add(stats.dev);
  }

  hasItsName(): boolean {
    const stats = statSync(this.name, { throwIfNoEntry: false });
    return stats !== undefined && stats.ino === this.#inode && stats.dev === this.#device;
  }

  isUnlocked(): boolean {
    if (this.#lockedByte === undefined || this.#lock?.isHeld() === true) return false;
    if (this.#device === undefined || !devicesWithLocks.has(this.#device)) return false;
    this.close();
    this.#lock = this.#findLock();
    return this.#lock === undefined;
  }

  /** Whether this process has the file open. True if the system does not tell. */
  isOpen(): boolean {
    return this.#descriptors()?.length !== 0;
  }

  close(): void {
    this.#lock?.close();
    this.#lock = undefined;
  }

  /** Looks at all descriptors, since SQLite locks a file once for all of its connections. */
  #findLock(): FileLock | undefined {
    const byte = this.#lockedByte;
    if (byte === undefined) return undefined;
    for (const descriptor of this.#descriptors() ?? []) {
      const lock = FileLock.find(descriptor, byte);
      if (lock !== undefined) return lock;
    }
    return undefined;
  }

  /** The descriptors of this process that lead to the file. */
  #descriptors(): number[] | undefined {
    return openDescriptors()?.filter((descriptor) => {
      try {
        const { ino, dev } = fstatSync(descriptor);
        return ino === this.#inode && dev === this.#device;
      } catch {
        return false; // It was the descriptor that listed them.
      }
    });
  }
}

/** Undefined if the system does not list them. */
function openDescriptors(): number[] | undefined {
  try {
    return readdirSync('/dev/fd').map(Number);
  } catch {
    return undefined;
  }
}
