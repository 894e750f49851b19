// The driver of memory(): all that a driver can do, on a table in this process.

import {
  clearInterval,
  clearTimeout,
  nextTurn,
  setImmediate,
  setInterval,
  setTimeout,
  wallClockTime,
} from '../clock.js';
import type { DriverWorker, EngineDriver, Page, ScheduleStore, Selection, StoredSchedule } from '../engine/driver.js';
import type { EngineStats, TaskRecord } from '../engine/engine.js';
import type { TaskMessage } from '../engine/message.js';
import type { MessageRunner } from '../engine/message-runner.js';
import type { Progress } from '../engine/progress.js';
import type { AttemptOutcome } from '../engine/run.js';
import { serializeError, serializeResult } from '../engine/serialize.js';
import { longestDelay } from '../options.js';
import { MemoryTable, type Row, recordOf } from './memory-table.js';

/** What several engines of one process may share. */
export class MemoryStore {
  readonly table = new MemoryTable(() => this.now());
  readonly schedules = new MemorySchedules(this.table);
  readonly workers = new Set<MemoryWorker>();
  /** While tasks are drained, others are not unknown. */
  isDraining = false;
  #advanced = 0;
  readonly #listeners: (() => void)[] = [];

  now(): number {
    return wallClockTime() + this.#advanced;
  }

  advance(duration: number): void {
    this.#advanced += duration;
    this.wake();
  }

  /** There may be something to take, or the last task has ended. */
  wake(): void {
    for (const worker of this.workers) worker.wake();
    for (const listener of this.#listeners.splice(0)) listener();
  }

  isKnown(name: string): boolean {
    return [...this.workers].some((worker) => worker.knows(name));
  }

  /** Resolves when nothing runs and nothing is due of what is known. */
  async settled(knows: (name: string) => boolean): Promise<void> {
    while (this.table.isAnyDue(knows) || [...this.workers].some(({ isBusy }) => isBusy)) {
      await new Promise<void>((resolve) => {
        this.#listeners.push(resolve);
      });
      await nextTurn(); // What follows from the end of a task may enqueue.
    }
  }
}

export class MemoryDriver implements EngineDriver {
  readonly name = 'memory';
  readonly schedules: ScheduleStore;
  readonly #store: MemoryStore;
  readonly #table: MemoryTable;

  constructor(store: MemoryStore) {
    this.#store = store;
    this.#table = store.table;
    this.schedules = store.schedules;
  }

  now(): number {
    return this.#store.now();
  }

  async insert(message: TaskMessage): Promise<string> {
    const id = this.#table.insert(message);
    this.#store.wake();
    return id;
  }

  async insertMany(messages: readonly TaskMessage[]): Promise<string[]> {
    const ids = messages.map((message) => this.#table.insert(message));
    this.#store.wake();
    return ids;
  }

  /** There is no database whose transaction this could be: what is rolled back stays. */
  within(): this {
    return this;
  }

  work(runner: MessageRunner): DriverWorker {
    return new MemoryWorker(this.#store, runner);
  }

  async find(ids: readonly string[], { result }: { readonly result: boolean }): Promise<TaskRecord[]> {
    const rows = ids.map((id) => this.#table.get(id)).filter((row) => row !== undefined);
    return rows.map((row) => recordOf(row, this.now(), { result, args: result }));
  }

  async list(page: Page): Promise<TaskRecord[]> {
    return this.#table.page(page).map((row) => recordOf(row, this.now(), { result: false, args: true }));
  }

  async stats(): Promise<EngineStats> {
    return this.#table.stats();
  }

  async cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    const answer = this.#table.cancel(id);
    this.#store.wake(); // What waited behind it may run.
    return answer;
  }

  async findCancelled(ids: readonly string[]): Promise<string[]> {
    return ids.filter((id) => this.#table.get(id)?.isMarked);
  }

  async *retry(selection: Selection): AsyncGenerator<number> {
    yield this.#table.retry(selection);
    this.#store.wake();
  }

  async promote(id: string): Promise<boolean> {
    const isPromoted = this.#table.promote(id);
    this.#store.wake();
    return isPromoted;
  }

  async *remove(selection: Selection): AsyncGenerator<number> {
    yield this.#table.remove(selection);
    this.#store.wake();
  }

  async setProgress(progress: readonly Progress[]): Promise<void> {
    for (const { id, attempt, json } of progress) {
      const row = this.#table.get(id);
      if (row?.attempts === attempt) row.progress = json;
    }
  }

  close(): void {}
}

/** Between two signs of life of a worker, in ms. */
const beat = 1000;

/** Its timers keep no process up: a test that forgets a worker ends all the same. */
class MemoryWorker implements DriverWorker {
  readonly #store: MemoryStore;
  readonly #runner: MessageRunner;
  readonly #beat: NodeJS.Timeout;
  /** Attempts whose end is not stored yet. */
  readonly #open = new Set<Promise<void>>();
  #isScheduled = false;
  #isStopped = false;
  #timer: NodeJS.Timeout | undefined = undefined;

  constructor(store: MemoryStore, runner: MessageRunner) {
    this.#store = store;
    this.#runner = runner;
    this.#beat = setInterval(() => {
      runner.polled();
      this.#reportUnknown();
    }, beat).unref();
    store.workers.add(this);
    this.wake();
  }

  knows(name: string): boolean {
    return this.#runner.knows(name);
  }

  get isBusy(): boolean {
    return this.#open.size > 0;
  }

  wake(): void {
    if (this.#isScheduled || this.#isStopped) return;
    this.#isScheduled = true;
    setImmediate(() => {
      this.#isScheduled = false;
      if (!this.#isStopped) this.#take();
    });
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    clearInterval(this.#beat);
  }

  async close(): Promise<void> {
    this.stop();
    await Promise.all(this.#open);
    this.#store.workers.delete(this);
    this.#store.wake(); // For what it has put back.
  }

  #take(): void {
    const { table } = this.#store;
    // Of before it looks: a task that comes due in between must not be missed by both.
    const time = this.#store.now();
    while (this.#runner.free > 0) {
      const row = table.take((name) => this.#runner.knows(name));
      if (row === undefined) break;
      const run = this.#run(row);
      this.#open.add(run);
      void run.then(() => {
        this.#open.delete(run);
        this.#store.wake();
      });
    }
    clearTimeout(this.#timer);
    const due = table.nextDue(time);
    if (due === Number.POSITIVE_INFINITY) return;
    this.#timer = setTimeout(() => this.wake(), Math.min(Math.max(1, due - this.#store.now()), longestDelay)).unref();
  }

  /** Not at once: the worker that knows a task may begin in a moment. */
  #reportUnknown(): void {
    const { isDraining, table } = this.#store;
    if (isDraining) return;
    for (const { message, attempts } of table.takeUnknown((name) => this.#store.isKnown(name))) {
      this.#runner.reportUnknown({ id: message.id, name: message.name, attempt: attempts });
    }
  }

  async #run(row: Row): Promise<void> {
    const { id, name, json, timeout, retries, headers } = row.message;
    const { attempts: attempt, failures } = row;
    const outcome = await this.#runner.run({
      id,
      name,
      args: JSON.parse(json),
      timeout,
      attempt,
      retries,
      failures,
      headers,
    });
    this.#end(row, outcome);
  }

  #end(row: Row, outcome: AttemptOutcome): void {
    const { table } = this.#store;
    switch (outcome.state) {
      case 'succeeded':
        row.result = serializeResult(outcome.result);
        table.end(row, 'succeeded');
        break;
      case 'failed':
        row.error = serializeError(outcome.error);
        row.failures++;
        if (outcome.retryIn !== undefined || row.isMarked) {
          table.putBack(row, this.#store.now() + (outcome.retryIn ?? 0));
        } else {
          table.end(row, 'failed');
          const { id, name, json } = row.message;
          this.#runner.report({ id, name, attempt: row.attempts, json }, outcome.error);
        }
        break;
      case 'cancelled':
        table.end(row, 'cancelled');
        break;
      case 'unused':
        row.attempts--;
        table.putBack(row, row.runAt);
        break;
      case 'dropped':
        table.putBack(row, row.runAt);
    }
  }
}

class MemorySchedules implements ScheduleStore {
  readonly #table: MemoryTable;
  readonly #schedules = new Map<string, StoredSchedule>();
  /** All that lives in this process is watched all the time. */
  readonly patience = 0;

  constructor(table: MemoryTable) {
    this.#table = table;
  }

  async list(due = Number.POSITIVE_INFINITY): Promise<StoredSchedule[]> {
    return [...this.#schedules.values()].filter(({ next }) => next <= due);
  }

  async put(schedule: StoredSchedule): Promise<void> {
    this.#schedules.set(schedule.name, schedule);
  }

  async delete(name: string): Promise<boolean> {
    return this.#schedules.delete(name);
  }

  async advance(schedule: StoredSchedule, next: number, message: TaskMessage): Promise<void> {
    if (this.#schedules.get(schedule.name) !== schedule) return;
    this.#schedules.set(schedule.name, { ...schedule, next });
    this.#table.insert(message);
  }
}
