// What a task reports of its progress: JSON, and small, since it is stored again and again.

import { inspectShort } from '../foreign-value.js';

/** In bytes. */
const largest = 64 * 1024;

let hasWarned = false;

/** Undefined for what cannot be reported. A report never fails the task, so that this is a warning of the process, once. */
export function serializeProgress(value: unknown, task: string): string | undefined {
  try {
    const json: unknown = JSON.stringify(value);
    if (typeof json === 'string' && Buffer.byteLength(json) <= largest) return json;
  } catch {
    // A cycle, a BigInt, or a value that throws when it is read.
  }
  if (hasWarned) return undefined;
  hasWarned = true;
  const what = `the progress of task "${task}" was ignored: it must be JSON of at most 64 kB, not ${inspectShort(value)}`;
  process.emitWarning(what, 'BackgroundTasksWarning');
  return undefined;
}
