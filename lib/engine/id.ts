// The ids of stored tasks: UUIDs of version 7, which hold the time at which they were made (RFC 9562).

import { createHash, randomUUID } from 'node:crypto';
import { wallClockTime } from '../clock.js';

export function newId(): string {
  return uuid(wallClockTime(), randomUUID());
}

/** Always the same one for a time and a name, whichever process makes it. */
export function idOf(time: number, name: string): string {
  const hash = createHash('sha256').update(`${time} ${name}`).digest('hex');
  return uuid(
    time,
    `${hash.slice(0, 8)}-${hash.slice(8, 12)}-4${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`,
  );
}

/** The rest is that of another id. */
function uuid(time: number, rest: string): string {
  const hex = time.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7${rest.slice(15)}`;
}

/** When an id was made; undefined for one that this library did not make. In lower case. */
export function timeOfId(id: string): Date | undefined {
  const [, high, low] = /^([\da-f]{8})-([\da-f]{4})-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.exec(id) ?? [];
  return high === undefined || low === undefined ? undefined : new Date(Number.parseInt(high + low, 16));
}

/** An id as it is stored. Undefined for what cannot be one: ids are UUIDs, which may be written in upper case. */
export function knownId(id: unknown): string | undefined {
  const text = String(id);
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(text) ? text.toLowerCase() : undefined;
}
