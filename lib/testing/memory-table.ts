// The tasks of memory(): what happens to one of them, step by step. Who takes the steps is the driver's part.

import type { Page, Selection } from '../engine/driver.js';
import { type EngineStats, isOver, type TaskRecord, type TaskState } from '../engine/engine.js';
import { timeOfId } from '../engine/id.js';
import type { TaskMessage } from '../engine/message.js';

/** `behind`: it waits for the end of the task with its key, which runs. */
type RowState = TaskState | 'behind';

export interface Row {
  message: TaskMessage;
  state: RowState;
  readonly seq: number;
  /** In ms since 1970. */
  readonly enqueuedAt: number;
  runAt: number;
  attempts: number;
  /** Failed attempts, since `retry()` if that was called. */
  failures: number;
  isMarked: boolean;
  /** Whether it was reported as unknown. */
  isReported?: boolean;
  startedAt?: number;
  finishedAt?: number;
  error?: NonNullable<TaskRecord['error']>;
  /** JSON, as `progress` is. */
  result?: string | undefined;
  progress?: string;
}

export class MemoryTable {
  /** In the order in which they were stored. */
  readonly #rows = new Map<string, Row>();
  readonly #now: () => number;
  #lastSeq = 0;

  constructor(now: () => number) {
    this.#now = now;
  }

  /** Returns the id: where a live task has the same key, that one's. */
  insert(message: TaskMessage): string {
    const { id, key, whileRunning } = message;
    if (this.#rows.has(id)) return id;
    const live = key === undefined ? [] : this.#liveWith(key);
    const behind = live.find((row) => row.state === 'behind');
    const [first] = live;
    const isAgain = whileRunning === 'again';
    const now = this.#now();
    const runAt = now + (message.delay ?? 0);
    if (isAgain && behind !== undefined) {
      behind.message = { ...message, id: behind.message.id };
      behind.runAt = runAt;
      return behind.message.id;
    }
    if (first !== undefined && (first.state !== 'running' || !isAgain)) return first.message.id;
    const state = first === undefined ? 'queued' : 'behind';
    const seq = ++this.#lastSeq;
    this.#rows.set(id, { message, state, seq, enqueuedAt: now, runAt, attempts: 0, failures: 0, isMarked: false });
    return id;
  }

  /** The first task that is due and fits, begun. */
  take(knows: (name: string) => boolean): Row | undefined {
    const now = this.#now();
    let first: Row | undefined;
    for (const row of this.#rows.values()) {
      if (row.state !== 'queued' || row.runAt > now || !knows(row.message.name)) continue;
      if (first === undefined || priorityOf(row) > priorityOf(first)) first = row;
    }
    if (first === undefined) return undefined;
    first.state = 'running';
    first.attempts++;
    first.startedAt = now;
    return first;
  }

  /** Tasks that are due and that nobody knows, each once. */
  takeUnknown(knows: (name: string) => boolean): Row[] {
    const now = this.#now();
    const unknown = [...this.#rows.values()].filter(
      ({ state, runAt, isReported, message }) =>
        state === 'queued' && runAt <= now && isReported !== true && !knows(message.name),
    );
    for (const row of unknown) row.isReported = true;
    return unknown;
  }

  isAnyDue(knows: (name: string) => boolean): boolean {
    const now = this.#now();
    return this.#some(({ state, runAt, message }) => state === 'queued' && runAt <= now && knows(message.name));
  }

  /** When the next task is due that was not due at this time. */
  nextDue(time: number): number {
    const waiting = [...this.#rows.values()].filter(({ state, runAt }) => state === 'queued' && runAt > time);
    return Math.min(...waiting.map(({ runAt }) => runAt));
  }

  /** A task that runs is put back, or cancelled if it is marked. */
  putBack(row: Row, runAt: number): void {
    if (row.isMarked) {
      this.end(row, 'cancelled');
    } else {
      row.state = 'queued';
      row.runAt = runAt;
    }
  }

  end(row: Row, state: 'succeeded' | 'failed' | 'cancelled'): void {
    row.state = state;
    row.finishedAt = this.#now();
    this.#release(row.message.key);
  }

  /** What waits behind a task with the key may run once there is none. */
  #release(key: string | undefined): void {
    if (key === undefined) return;
    const live = this.#liveWith(key);
    if (live.some(({ state }) => state !== 'behind')) return;
    for (const next of live) next.state = 'queued';
  }

  get(id: string): Row | undefined {
    return this.#rows.get(id);
  }

  cancel(id: string): 'cancelled' | 'signalled' | 'over' | undefined {
    const row = this.#rows.get(id);
    if (row === undefined) return undefined;
    if (row.state === 'running') {
      row.isMarked = true;
      return 'signalled';
    }
    if (row.state !== 'behind' && isOver(row.state)) return 'over';
    this.end(row, 'cancelled');
    return 'cancelled';
  }

  retry(selection: Selection): number {
    let count = 0;
    for (const row of this.#select(selection)) {
      if (row.state !== 'failed' && row.state !== 'cancelled') continue;
      const { key } = row.message;
      if (key !== undefined && this.#liveWith(key).length > 0) continue;
      row.state = 'queued';
      row.runAt = this.#now();
      row.failures = 0;
      row.isMarked = false;
      delete row.finishedAt;
      count++;
    }
    return count;
  }

  promote(id: string): boolean {
    const row = this.#rows.get(id);
    const now = this.#now();
    if (row?.state !== 'queued' || row.runAt <= now) return false;
    row.runAt = now;
    return true;
  }

  remove(selection: Selection): number {
    const removed = this.#select(selection).filter(({ state }) => state !== 'running');
    for (const { message } of removed) this.#rows.delete(message.id);
    for (const { message } of removed) this.#release(message.key);
    return removed.length;
  }

  page({ after, offset, limit, ...filter }: Page): Row[] {
    const before = after === undefined ? Number.POSITIVE_INFINITY : this.#seqOf(after);
    const older = this.#select(filter).filter(({ seq }) => seq < before);
    return older.reverse().slice(offset, offset + limit);
  }

  stats(): EngineStats {
    const now = this.#now();
    const stats: EngineStats = { queued: 0, due: 0, running: 0, succeeded: 0, failed: 0, cancelled: 0 };
    let oldest = Number.POSITIVE_INFINITY;
    for (const { state, runAt } of this.#rows.values()) {
      stats[state === 'behind' ? 'queued' : state]++;
      if (state !== 'queued' || runAt > now) continue;
      stats.due++;
      oldest = Math.min(oldest, runAt);
    }
    if (stats.due > 0) stats.oldestDueAt = new Date(oldest);
    return stats;
  }

  /** The arguments of the tasks of a name that wait, oldest first. */
  argsOf<A extends readonly unknown[]>(name: string): A[] {
    return this.#select({ name, state: 'queued' }).map(({ message }): A => JSON.parse(message.json));
  }

  #select(selection: Selection): Row[] {
    if ('id' in selection) return [this.#rows.get(selection.id)].filter((row) => row !== undefined);
    const { state, name } = selection;
    return [...this.#rows.values()].filter(
      (row) => (state === undefined || publicState(row) === state) && (name === undefined || row.message.name === name),
    );
  }

  /** Of a task that was removed, by the time in its id. */
  #seqOf(id: string): number {
    const time = Number(timeOfId(id) ?? 0);
    return (
      this.#rows.get(id)?.seq ??
      Math.max(0, ...[...this.#rows.values()].filter((row) => row.enqueuedAt <= time).map(({ seq }) => seq)) + 1
    );
  }

  #liveWith(key: string): Row[] {
    return [...this.#rows.values()].filter((row) => row.message.key === key && !isOver(publicState(row)));
  }

  #some(fits: (row: Row) => boolean): boolean {
    return [...this.#rows.values()].some(fits);
  }
}

export function recordOf(
  row: Row,
  now: number,
  fields: { readonly result: boolean; readonly args: boolean },
): TaskRecord {
  const { message, attempts, runAt, progress, error, startedAt, finishedAt } = row;
  const state = publicState(row);
  const record: TaskRecord = {
    id: message.id,
    name: message.name,
    state,
    attempts,
    enqueuedAt: new Date(row.enqueuedAt),
  };
  if (fields.args) record.args = JSON.parse(message.json);
  if (fields.result && state === 'succeeded' && row.result !== undefined) record.result = JSON.parse(row.result);
  if (error !== undefined && state !== 'succeeded') record.error = error;
  if (state === 'queued' && runAt > now) record.runAt = new Date(runAt);
  if (progress !== undefined) record.progress = JSON.parse(progress);
  if (message.key !== undefined) record.key = message.key;
  if (message.priority) record.priority = message.priority;
  if (startedAt !== undefined && attempts > 0) record.startedAt = new Date(startedAt);
  if (finishedAt !== undefined) record.finishedAt = new Date(finishedAt);
  return record;
}

function publicState({ state }: Row): TaskState {
  return state === 'behind' ? 'queued' : state;
}

function priorityOf({ message }: Row): number {
  return message.priority ?? 0;
}
