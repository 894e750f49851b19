// The headers of a message: what a worker is to know of the call that enqueued it, such as its trace.

import { isObject } from '../foreign-value.js';

/** By name. Together at most 8 kB as JSON. */
export type Headers = Readonly<Record<string, string>>;

export const noHeaders: Headers = Object.freeze({});

/** In bytes of JSON. */
const largest = 8 * 1024;

let hasWarned = false;

/**
 * Those that a subscriber has written, or undefined where there are none. Whoever only watches must not make an enqueue fail:
 * what is no string, or is too much, is left out, with a warning of the process, once.
 */
export function readHeaders(written: unknown, task: string): Headers | undefined {
  const headers = stringsOf(written);
  const { length } = isObject(written) ? Object.keys(written) : [];
  if (headers === undefined || Object.keys(headers).length < length) warn(task);
  return headers !== undefined && Object.keys(headers).length > 0 ? headers : undefined;
}

/** Those of a stored message, as JSON. Somebody else may have changed them. */
export function parseHeaders(json: unknown): Headers | undefined {
  if (typeof json !== 'string') return undefined;
  try {
    return stringsOf(JSON.parse(json));
  } catch {
    return undefined;
  }
}

/**
 * Undefined for what holds no headers. Where they are too large together the shortest stay: one that comes from a client, such as
 * its baggage, must not take the others along.
 */
function stringsOf(value: unknown): Headers | undefined {
  if (!isObject(value)) return undefined;
  const headers = Object.entries(value).filter(isHeader);
  if (sizeOf(headers) <= largest) return Object.fromEntries(headers);
  headers.sort(([, a], [, b]) => b.length - a.length);
  while (sizeOf(headers) > largest) headers.shift();
  return Object.fromEntries(headers);
}

function sizeOf(headers: [string, string][]): number {
  return Buffer.byteLength(JSON.stringify(Object.fromEntries(headers)));
}

function isHeader(entry: [string, unknown]): entry is [string, string] {
  return typeof entry[1] === 'string';
}

function warn(task: string): void {
  if (hasWarned) return;
  hasWarned = true;
  const what = `headers of a message of task "${task}" were left out: they must be strings, together of at most 8 kB`;
  process.emitWarning(what, 'BackgroundTasksWarning');
}
