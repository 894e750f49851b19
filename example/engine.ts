// The engine of the example: an SQLite file that the server and its workers share.

import type { TaskEngine } from 'express-background-tasks';

/** undefined on a Node.js that better-sqlite3 13 does not run on. */
export async function openEngine(path: string, options: { lease?: number } = {}): Promise<TaskEngine | undefined> {
  if (Number.parseInt(process.versions.node, 10) < 22) return undefined;
  const { sqlite } = await import('express-background-tasks/sqlite');
  return sqlite({ path, ...options });
}
