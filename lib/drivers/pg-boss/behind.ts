// Tasks that wait behind the running task with their key (`whileRunning: 'again'`). pg-boss knows no such state: they are stored
// under a key of their own, and so late that none is taken. When the running task has ended, both are put right.

import { queue } from './boss.js';
import type { Names } from './table.js';

/** In years or days it would depend on the time zone of the connection. */
const shift = `${7000 * 366 * 24} hours`;

const prefix = 'behind ';

export function keyBehind(singletonKey: string): string {
  return `${prefix}${singletonKey}`;
}

/** As an interval: when one may run that is behind another one, in so many seconds after that. */
export function startAfterBehind(seconds: number): string {
  return `${shift} ${seconds} seconds`;
}

/** The key of a task that waits, whether it is behind another one or not. */
export const ownKey = `CASE WHEN starts_with(singleton_key, '${prefix}') THEN substr(singleton_key, ${prefix.length + 1})
  ELSE singleton_key END`;

/** In the order of an index. */
export const isBehind = "state = 'created' AND NOT blocked AND start_after >= '6000-01-01T00:00:00Z'";

/** When a task that waits may run, whether it is behind another one or not. */
export const dueAt = `CASE WHEN ${isBehind} THEN start_after - interval '${shift}' ELSE start_after END`;

/** Queues those whose key is free, of the keys that the second value lists as JSON, or of all. */
export function releaseStatement({ jobs }: Names): string {
  const key = `substr(behind.singleton_key, ${prefix.length + 1})`;
  return `UPDATE ${jobs} behind SET singleton_key = ${key}, start_after = ${dueAt}
    WHERE name = $1::text AND ${isBehind} AND starts_with(behind.singleton_key, '${prefix}')
      AND ($2::text IS NULL OR ${key} IN (SELECT json_array_elements_text($2::text::json)))
      AND NOT EXISTS (SELECT FROM ${jobs} live WHERE live.name = '${queue}' AND live.policy = 'exclusive'
        AND live.state <= 'active' AND COALESCE(live.singleton_key, '') = ${key})
    RETURNING id`;
}
