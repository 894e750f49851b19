// The JSON that Celery keeps for a task (celery/backends/base.py), parsed whole or from its two ends.

import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';

/** Celery's names. Each field may be missing, or be anything. */
export type Meta = Partial<Record<'status' | 'result' | 'date_done' | 'name' | 'retries', unknown>>;

/** @throws BackgroundTasksError `ERR_INVALID_OPTION` for anything but JSON. */
export function parseMeta(id: string, json: string): Meta {
  try {
    return fields(JSON.parse(json));
  } catch (cause) {
    const message = `celery: the result of task ${id} is not JSON: the workers' "result_serializer" must be "json"`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
  }
}

/**
 * Parses everything but the result from the first and the last bytes. Between them there may be megabytes of a result or, with
 * `result_extended`, of arguments. Undefined if the two ends are not enough, as for a task that failed, whose error is in the
 * result.
 */
export function parseEnds(head: string, tail: string): Meta | undefined {
  const isSuccess = /^\s*\{\s*"status"\s*:\s*"SUCCESS"/.test(head);
  const end = fieldsFrom('date_done', tail) ?? fieldsFrom('retries', tail);
  if (!isSuccess || end === undefined) return undefined;
  const meta: Meta = { ...fieldsBefore('args', head), ...end, status: 'SUCCESS' };
  return 'date_done' in meta ? meta : undefined;
}

/** The text before a key of the outer object becomes JSON by a closing brace. The text before an inner key does not. */
function fieldsBefore(key: string, head: string): Meta | undefined {
  const texts = [...head.matchAll(new RegExp(`,\\s*"${key}"`, 'g'))].map(({ index }) => `${head.slice(0, index)}}`);
  return firstJson(texts);
}

/** The same from the other end, with an opening brace. */
function fieldsFrom(key: string, tail: string): Meta | undefined {
  const texts = [...tail.matchAll(new RegExp(`"${key}"`, 'g'))].map(({ index }) => `{${tail.slice(index)}`);
  return firstJson(texts.reverse());
}

function firstJson(texts: readonly string[]): Meta | undefined {
  for (const text of texts) {
    try {
      return fields(JSON.parse(text));
    } catch {
      // It was an inner key.
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
