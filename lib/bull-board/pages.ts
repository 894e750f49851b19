// Which tasks a page of the board shows. The board asks for a tab and a range of it; an engine knows states, and can leave out
// the newest of one.

import type { JobStatus } from '@bull-board/api/typings/app';
import type { TaskEngine, TaskRecord, TaskState } from '../engine/engine.js';
import { tabOf } from './job.js';

/** At most so many tasks are read at once: an engine's limit. */
const longestList = 1000;

/** An engine tells waiting tasks from delayed ones by looking at each. For a page it looks at so many, the newest. */
const longestLook = 10_000;

/** No store has as many tasks, and each can count so far. */
const lastOffset = 2 ** 31 - 1;

/** Tasks from `start` to `end`, both included, newest first. */
export async function pageOf(
  engine: TaskEngine,
  statuses: readonly JobStatus[],
  start: number,
  end: number,
): Promise<TaskRecord[]> {
  const limit = Math.min(end - start + 1, longestList);
  if (start > lastOffset) return [];
  // The tab for the latest ones, of which there is one page.
  if (statuses.length > 1) return engine.list({ limit });
  switch (statuses[0]) {
    case 'active':
      return engine.list({ state: 'running', limit, offset: start });
    case 'completed':
      return engine.list({ state: 'succeeded', limit, offset: start });
    case 'failed':
      return failedPage(engine, limit, start);
    case 'waiting':
    case 'delayed':
      return queuedPage(engine, statuses[0], limit, start);
    default:
      return [];
  }
}

/** The failed ones, and behind them those that were cancelled. */
async function failedPage(engine: TaskEngine, limit: number, start: number): Promise<TaskRecord[]> {
  const page = (state: TaskState, size: number, offset: number): Promise<TaskRecord[]> | TaskRecord[] =>
    size === 0 ? [] : engine.list({ state, limit: size, offset });
  const { failed } = await engine.stats();
  const first = await page('failed', Math.min(limit, Math.max(0, failed - start)), start);
  return [...first, ...(await page('cancelled', limit - first.length, Math.max(0, start - failed)))];
}

async function queuedPage(
  engine: TaskEngine,
  status: 'waiting' | 'delayed',
  limit: number,
  start: number,
): Promise<TaskRecord[]> {
  const { queued, due } = await engine.stats();
  const count = status === 'waiting' ? due : queued - due;
  if (start >= count) return [];
  if (count === queued) return engine.list({ state: 'queued', limit, offset: start });
  const found: TaskRecord[] = [];
  let looked = 0;
  for await (const records of queuedTasks(engine)) {
    found.push(...records.filter((record) => tabOf(record) === status));
    looked += records.length;
    if (found.length >= start + limit || looked >= longestLook) break;
  }
  return found.slice(start, start + limit);
}

/** The ids of all that wait, or of all that wait for their time. They are read before one of them is changed. */
export async function queuedIds(engine: TaskEngine, status: 'waiting' | 'delayed'): Promise<string[]> {
  const ids: string[] = [];
  for await (const records of queuedTasks(engine)) {
    for (const record of records) if (tabOf(record) === status) ids.push(record.id);
  }
  return ids;
}

async function* queuedTasks(engine: TaskEngine): AsyncGenerator<TaskRecord[]> {
  let records: TaskRecord[] | undefined;
  do {
    records = await engine.list({ state: 'queued', limit: longestList, after: records?.at(-1)?.id });
    yield records;
  } while (records.length === longestList);
}
