// A POSIX lock of this process, as Linux shows it. Other systems do not show locks.

import { closeSync, openSync, readSync } from 'node:fs';

/** Large enough for the two or three locks of a file. */
const buffer = Buffer.alloc(4096);

/** Matches `POSIX  ADVISORY  READ 4711 fe:00:1234 128 128`. The last two numbers are the first and the last locked byte. */
const pattern = /POSIX .* (\d+) (\d+|EOF)$/gm;

export class FileLock {
  /** A descriptor of the text in /proc that shows the lock. */
  readonly #description: number;
  readonly #text: string;

  /** Finds the lock on a byte that was taken by this descriptor. */
  static find(descriptor: number, byte: number): FileLock | undefined {
    let description: number;
    try {
      description = openSync(`/proc/self/fdinfo/${descriptor}`, 'r');
    } catch {
      return undefined;
    }
    for (const [text, first, last] of read(description).matchAll(pattern)) {
      if (Number(first) <= byte && (last === 'EOF' || Number(last) >= byte)) return new FileLock(description, text);
    }
    closeSync(description);
    return undefined;
  }

  private constructor(description: number, text: string) {
    this.#description = description;
    this.#text = text;
  }

  isHeld(): boolean {
    return read(this.#description).includes(this.#text);
  }

  close(): void {
    closeSync(this.#description);
  }
}

/** Returns an empty text if the descriptor of the file is closed. */
function read(description: number): string {
  try {
    return buffer.toString('latin1', 0, readSync(description, buffer, 0, buffer.length, 0));
  } catch {
    return '';
  }
}
