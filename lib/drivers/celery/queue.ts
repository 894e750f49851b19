// The queue among the options. Refused at once: what the broker would refuse at each enqueue, or take for another queue.

import { BackgroundTasksError } from '../../errors.js';
import { inspectShort } from '../../foreign-value.js';
import type { Check } from '../../options.js';
import { isPlain } from './kwargs.js';

export interface Queue {
  readonly name: string;
  /** As RabbitMQ has them. */
  readonly arguments: Readonly<Record<string, unknown>>;
}

/** Returns what the name must be, if it is not. */
type NameCheck = (name: string) => string | undefined;

export function checkQueue(name: string, check: NameCheck): string {
  const expected = isIllFormed(name) ? 'without half a surrogate pair' : check(name);
  if (expected === undefined) return name;
  const found = inspectShort(name);
  throw new BackgroundTasksError('ERR_INVALID_OPTION', `celery(): "queue" must be ${expected}, not ${found}`);
}

export const isRabbitmqQueue: NameCheck = (name) => {
  if (Buffer.byteLength(name) > 255) return 'at most 255 bytes long';
  if (name.startsWith('amq.')) return 'without the prefix "amq.", which RabbitMQ keeps for itself';
  return /[\r\n]/.test(name) ? 'without line breaks' : undefined;
};

/** A queue is a list, in the same database as kombu's own keys. */
export const isRedisQueue: NameCheck = (name) =>
  /^(unacked(_index|_mutex)?$|_kombu\.)/.test(name) ? 'another name: Celery uses this one itself' : undefined;

/** With other values, amqplib would fail at each enqueue. */
export const isQueueArguments: Check = (value) =>
  isPlain(value) && Object.values(value).every(isQueueArgument)
    ? undefined
    : 'a plain object of strings, numbers and booleans';

function isQueueArgument(value: unknown): boolean {
  return ['string', 'boolean', 'undefined'].includes(typeof value) || Number.isFinite(value);
}

/** Half a surrogate pair cannot be encoded: the broker would receive another text. */
export function isIllFormed(text: string): boolean {
  return /[\ud800-\udfff]/u.test(text);
}
