// Which file a task's function is in.

import { existsSync } from 'node:fs';
import { isAbsolute } from 'node:path';
import { fileURLToPath } from 'node:url';
import { isObject } from '../foreign-value.js';

/** The path of a `file:` URL, or an absolute path. Undefined for anything else. */
export function pathOf(module: unknown): string | undefined {
  const text = isObject(module) ? Reflect.get(module, 'href') : module;
  if (typeof text !== 'string') return undefined;
  if (!text.startsWith('file:')) return isAbsolute(text) ? text : undefined;
  try {
    return fileURLToPath(text);
  } catch {
    return undefined; // It names another host.
  }
}

/** The file, or the TypeScript file of that name where there is no JavaScript. Undefined if there is neither. */
export function existingFile(path: string): string | undefined {
  return [path, path.replace(/\.([cm]?)js$/, '.$1ts')].find((file) => existsSync(file));
}
