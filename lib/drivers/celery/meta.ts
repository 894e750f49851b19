// The JSON that Celery keeps of a task (celery/backends/base.py), read whole or at its ends alone.

import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';

/** What Celery names its fields. Each may be missing, and be anything. */
export type Meta = Partial<Record<'status' | 'result' | 'date_done' | 'name' | 'retries', unknown>>;

/** @throws BackgroundTasksError `ERR_INVALID_OPTION` for what is not JSON. */
export function parseMeta(id: string, json: string): Meta {
  try {
    return fields(JSON.parse(json));
  } catch (cause) {
    const message = `celery: the result of task ${id} is not JSON: the workers' "result_serializer" must be "json"`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
  }
}

/**
 * Reads all but the result from the first and the last bytes. Between them may be megabytes: a large result or, with
 * `result_extended`, large arguments. Undefined where the ends do not tell enough, as for a task that failed: its error is its result.
 */
export function parseEnds(head: string, tail: string): Meta | undefined {
  const isSuccess = /^\s*\{\s*"status"\s*:\s*"SUCCESS"/.test(head);
  const end = fieldsFrom('date_done', tail) ?? fieldsFrom('retries', tail);
  if (!isSuccess || end === undefined) return undefined;
  const meta: Meta = { ...fieldsBefore('args', head), ...end, status: 'SUCCESS' };
  return 'date_done' in meta ? meta : undefined;
}

/** The text before a key, and a brace, is JSON if it is a key of the outer object, and is not if it is a key further in. */
function fieldsBefore(key: string, head: string): Meta | undefined {
  const texts = [...head.matchAll(new RegExp(`,\\s*"${key}"`, 'g'))].map(({ index }) => `${head.slice(0, index)}}`);
  return firstJson(texts);
}

/** A brace, and the text from a key on. */
function fieldsFrom(key: string, tail: string): Meta | undefined {
  const texts = [...tail.matchAll(new RegExp(`"${key}"`, 'g'))].map(({ index }) => `{${tail.slice(index)}`);
  return firstJson(texts.reverse());
}

function firstJson(texts: readonly string[]): Meta | undefined {
  for (const text of texts) {
    try {
      return fields(JSON.parse(text));
    } catch {
      // A key further in.
    }
  }
  return undefined;
}

function fields(value: unknown): Meta {
  return isMeta(value) ? value : {};
}

function isMeta(value: unknown): value is Meta {
  return isObject(value);
}
