// A POSIX lock that this process has on a file, as Linux shows it. Other systems do not show theirs.

import { closeSync, openSync, readSync } from 'node:fs';

/** For some locks of one file; there are two or three. */
const buffer = Buffer.alloc(4096);

/** Such as `POSIX  ADVISORY  READ 4711 fe:00:1234 128 128`, with the first and the last byte that are locked. */
const pattern = /POSIX .* (\d+) (\d+|EOF)$/gm;

export class FileLock {
  /** A descriptor of the text in which Linux describes the descriptor of the file. */
  readonly #description: number;
  readonly #text: string;

  /** The lock on a byte that was taken by way of this descriptor. */
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

/** Empty for a descriptor that is closed. */
function read(description: number): string {
  try {
    return buffer.toString('latin1', 0, readSync(description, buffer, 0, buffer.length, 0));
  } catch {
    return '';
  }
}
