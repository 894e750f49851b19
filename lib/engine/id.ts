// The ids of stored tasks: UUIDs of version 7, which hold the time at which they were made (RFC 9562).

import { randomUUID } from 'node:crypto';
import { wallClockTime } from '../clock.js';

export function newId(): string {
  const time = wallClockTime().toString(16).padStart(12, '0');
  return `${time.slice(0, 8)}-${time.slice(8)}-7${randomUUID().slice(15)}`;
}

/** When an id was made; undefined for one that {@link newId} did not make. In lower case. */
export function timeOfId(id: string): Date | undefined {
  const [, high, low] = /^([\da-f]{8})-([\da-f]{4})-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/.exec(id) ?? [];
  return high === undefined || low === undefined ? undefined : new Date(Number.parseInt(high + low, 16));
}

export function isUuid(id: string): boolean {
  return /^[\da-f]{8}(-[\da-f]{4}){3}-[\da-f]{12}$/i.test(id);
}
