// Finds a task's function, inside of a thread.

import { pathToFileURL } from 'node:url';
import { BackgroundTasksError, NonRetryableError } from '../errors.js';
import { isObject } from '../foreign-value.js';
import type { AnyFunction } from '../task/types.js';
import type { CallMessage } from './messages.js';

const loaded = new Map<string, Promise<AnyFunction>>();

/** Loaded once, also if that fails: Node.js would not load it again either. */
export function functionOf({ task, module, exported }: CallMessage): Promise<AnyFunction> {
  const key = `${exported} ${module}`;
  const known = loaded.get(key) ?? load(task, module, exported);
  loaded.set(key, known);
  return known;
}

async function load(task: string, module: string, exported: string): Promise<AnyFunction> {
  const exports = await importModule(module);
  const found = findExport(exports, exported);
  if (found !== undefined) return found;
  const there = isObject(exports) ? Object.keys(exports).join(', ') : '';
  const message = `task "${task}": ${module} exports no function "${exported}", but ${there || 'nothing'}`;
  throw new BackgroundTasksError('ERR_INVALID_TASK', message, {
    cause: new NonRetryableError('another attempt fails as well'),
  });
}

async function importModule(module: string): Promise<unknown> {
  try {
    return await import(pathToFileURL(module).href);
  } catch (error) {
    // On Node.js 20 what registers TypeScript, such as tsx, reaches require() in a thread, but not import().
    if (isUnknownExtension(error) && '.ts' in require.extensions) return require(module);
    throw error;
  }
}

function isUnknownExtension(error: unknown): boolean {
  return isObject(error) && Reflect.get(error, 'code') === 'ERR_UNKNOWN_FILE_EXTENSION';
}

/** The exports of a CommonJS module are the `default` of the ES module that import() makes of it. */
function findExport(exports: unknown, name: string): AnyFunction | undefined {
  if (!isObject(exports)) return undefined;
  const inner: unknown = Reflect.get(exports, 'default');
  const found = [exports, inner]
    .map((place) => (isObject(place) ? Reflect.get(place, name) : undefined))
    .find(isFunction);
  return found ?? (name === 'default' && isFunction(exports) ? exports : undefined);
}

function isFunction(value: unknown): value is AnyFunction {
  return typeof value === 'function';
}
