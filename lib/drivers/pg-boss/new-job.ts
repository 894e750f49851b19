// What is made of a message: a job for pg-boss, or a refusal.

import { createHash } from 'node:crypto';
import { unsupported } from '../../engine/calls.js';
import type { TaskMessage } from '../../engine/message.js';
import { BackgroundTasksError } from '../../errors.js';
import { day } from './boss.js';
import type { StoredMessage } from './job.js';

export interface NewJob {
  readonly id: string;
  readonly data: StoredMessage;
  readonly priority: number;
  /** In seconds from now. */
  readonly startAfter: number;
  /** A hash of the task's key, or else its id: the policy of the queue keeps one live job of each. */
  readonly singletonKey: string;
  readonly group: { readonly id: string };
  readonly isAgain: boolean;
}

/** @throws BackgroundTasksError for what pg-boss or PostgreSQL cannot hold. */
export function jobOf(message: TaskMessage): NewJob {
  refuse(message);
  const { id, name, json, timeout, retries, headers, delay = 0, priority = 0, key, whileRunning } = message;
  return {
    id,
    data: {
      name,
      args: json,
      timeout,
      retries,
      headers: headers && JSON.stringify(headers),
      key: key === undefined ? undefined : JSON.stringify(key),
      failed: 0,
      dropped: 0,
      unused: 0,
    },
    priority,
    startAfter: Math.ceil(delay) / 1000,
    singletonKey: key === undefined ? id : hash(key),
    group: { id: name },
    isAgain: whileRunning === 'again',
  };
}

/** Of any text, what PostgreSQL can hold and index. */
export const hash = (text: string): string => createHash('sha256').update(JSON.stringify(text)).digest('base64url');

/** A text in jsonb has at most so many bytes. */
const longestText = 2 ** 28 - 1;

function refuse({ name, json, timeout = 0, delay = 0, priority = 0 }: TaskMessage): void {
  if (/[\0\ud800-\udfff]/u.test(name))
    throw unsupported('pg-boss', 'name', 'PostgreSQL has neither NUL nor half surrogates');
  // It is in an index, whose rows have room for 2,704 bytes. Over that it could be stored, and nothing be taken any more.
  if (Buffer.byteLength(name) > 2000) throw unsupported('pg-boss', 'name', 'it must be at most 2,000 bytes long');
  if (timeout >= day * 1000) throw unsupported('pg-boss', 'timeout', 'it must be less than a day');
  if (delay > 3650 * day * 1000) throw unsupported('pg-boss', 'delay', 'it must be at most 10 years');
  // In UTF-8, whose characters have at most three bytes for a unit of a string.
  if (json.length > longestText / 3 && Buffer.byteLength(json) > longestText) {
    const message = `task "${name}": PostgreSQL has no room for args of over ${longestText} bytes in jsonb`;
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', message);
  }
  if (Math.abs(priority) >= 2 ** 31) throw unsupported('pg-boss', 'priority', 'it must be a 32-bit integer');
}
