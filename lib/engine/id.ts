// The ids of stored tasks: UUIDs of version 7, which hold the time at which they were made (RFC 9562).

import { createHash, randomInt, randomUUID } from 'node:crypto';
import { wallClockTime } from '../clock.js';

let lastTime = 0;
let lastCount = 0;

/** In one process each is greater than the one before, so that tasks of the same millisecond have an order (section 6.2). */
export function newId(): string {
  const now = wallClockTime();
  if (now > lastTime || now < lastTime - mostBack) {
    lastTime = now;
    lastCount = randomInt(counts / 2);
  } else if (++lastCount === counts) {
    lastTime++;
    lastCount = 0;
  }
  return uuid(lastTime, `${lastCount.toString(16).padStart(3, '0')}${randomUUID().slice(18)}`);
}

/** So many ids have the same millisecond: they differ in twelve bits. */
const counts = 2 ** 12;
/** A clock that is set back by more than this is followed, in ms. */
const mostBack = 10_000;

/** Always the same one for a time and a name, whichever process makes it. */
export function idOf(time: number, name: string): string {
  const hash = createHash('sha256').update(`${time} ${name}`).digest('hex');
  return uuid(time, `${hash.slice(13, 16)}-8${hash.slice(17, 20)}-${hash.slice(20, 32)}`);
}

/** The rest follows the time and the version. */
function uuid(time: number, rest: string): string {
  const hex = time.toString(16).padStart(12, '0');
  return `${hex.slice(0, 8)}-${hex.slice(8)}-7${rest}`;
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
