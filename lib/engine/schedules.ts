// Schedules: each slot of a pattern enqueues one task. Any process with a worker may do it, and the store sees to it that one
// does.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout, wallClockTime } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isError } from '../foreign-value.js';
import { checkOptions, isText } from '../options.js';
import type { Calls } from './calls.js';
import type { EngineDriver, ScheduleStore, StoredSchedule } from './driver.js';
import type { ScheduleOptions, TaskSchedule } from './engine.js';
import { idOf } from './id.js';
import type { TaskMessage } from './message.js';

/** Between two looks at most, in ms: another process may have made a schedule. */
const interval = 1000;

/**
 * For so long a slot is left to the workers that lived when it came, in ms. Then a worker that was started later takes it for
 * one that nobody has seen.
 */
const patience = 5000;

/** Of a schedule that has had its last slot. */
const never = 8.64e15;

/** What is stored of a schedule, as JSON. */
interface Definition {
  readonly cron: string;
  readonly timeZone: string;
  readonly message: Omit<TaskMessage, 'id' | 'args'>;
}

export class Schedules {
  readonly #driver: EngineDriver;
  readonly #calls: Calls;
  readonly #onEnqueued: () => void;
  readonly #onFailure: (error: unknown) => void;
  #timer: NodeJS.Timeout | undefined = undefined;
  /** Since when the slots are watched here; undefined while no worker lives. */
  #watchedFrom: number | undefined = undefined;

  constructor(driver: EngineDriver, calls: Calls, onEnqueued: () => void, onFailure: (error: unknown) => void) {
    this.#driver = driver;
    this.#calls = calls;
    this.#onEnqueued = onEnqueued;
    this.#onFailure = onFailure;
  }

  /** Called when a worker begins. */
  start(): void {
    if (this.#driver.schedules === undefined || this.#watchedFrom !== undefined) return;
    this.#watchedFrom = this.#now();
    this.#setTimer(0);
  }

  /** Called when no worker is left. */
  stop(): void {
    this.#watchedFrom = undefined;
    clearTimeout(this.#timer);
  }

  async put(name: string, options: ScheduleOptions, { id: _id, args: _args, ...message }: TaskMessage): Promise<void> {
    const store = this.#store('schedule()');
    if (isText(name) !== undefined) {
      throw invalid(`the name must be a string that is not empty, not ${inspectShort(name)}`);
    }
    const { cron, timeZone = 'UTC' } = checked(options);
    const pattern = readPattern(cron, timeZone);
    const next = slotAfter(pattern, this.#now());
    if (next === never) throw invalid(`"cron" must be a pattern that comes, which ${inspectShort(cron)} never does`);
    const definition: Definition = { cron, timeZone, message };
    await this.#calls.make('the schedule could not be stored', async (expired) => {
      const stored = (await store.list(undefined, expired)).find((schedule) => schedule.name === name);
      expired.throwIfAborted();
      const kept = stored && hasTimes(stored, cron, timeZone) ? stored.next : never;
      // Whoever calls schedule() at each start must not throw away a slot that came meanwhile.
      const schedule = { name, definition: JSON.stringify(definition), next: Math.min(kept, next) };
      await store.put(schedule, expired);
    });
    if (this.#watchedFrom !== undefined) this.#setTimer(Math.min(interval, next - this.#now()));
  }

  async delete(name: string): Promise<boolean> {
    const store = this.#store('unschedule()');
    return this.#calls.make('the schedule could not be removed', (expired) => store.delete(String(name), expired));
  }

  async list(): Promise<TaskSchedule[]> {
    const store = this.#store('schedules()');
    const stored = await this.#calls.make('the schedules could not be read', (expired) =>
      store.list(undefined, expired),
    );
    return stored.map(({ name, definition, next }) => {
      const { cron, timeZone, message }: Definition = JSON.parse(definition);
      const args: unknown[] = JSON.parse(message.json);
      return { name, cron, timeZone, task: message.name, args, ...(next < never && { nextRunAt: new Date(next) }) };
    });
  }

  #store(call: string): ScheduleStore {
    return this.#calls.method('schedules', call);
  }

  #now(): number {
    return this.#driver.now?.() ?? wallClockTime();
  }

  #setTimer(delay: number): void {
    clearTimeout(this.#timer);
    // The worker, which it belongs to, is what keeps the process up.
    this.#timer = setTimeout(this.#look, Math.max(0, delay)).unref();
  }

  /** Without the AsyncLocalStorage stores of whoever has made a schedule. */
  readonly #look = AsyncResource.bind(async (): Promise<void> => {
    let next = Number.POSITIVE_INFINITY;
    try {
      const due = await this.enqueueDue();
      next = due.next;
      for (const failure of due.failures) this.#onFailure(failure);
    } catch (error) {
      this.#onFailure(error);
    }
    if (this.#watchedFrom !== undefined) this.#setTimer(Math.min(interval, next - this.#now()));
  });

  /**
   * Enqueues what is due. Resolves with when there is more to do, as far as is known. A schedule that fails, because another
   * version has stored its pattern, say, does not hold up the others.
   */
  async enqueueDue(): Promise<{ next: number; failures: unknown[] }> {
    const store = this.#store('schedules()');
    // A look ahead of the interval, so that a slot in it is met at its time.
    const due = await this.#calls.make('the schedules could not be read', (expired) =>
      store.list(this.#now() + interval, expired),
    );
    const advances = due.map((schedule) => this.#advance(store, schedule));
    const results = await Promise.allSettled(advances);
    const next = results.map((result) => (result.status === 'fulfilled' ? result.value : Number.POSITIVE_INFINITY));
    const failures = results.flatMap((result) => (result.status === 'rejected' ? [result.reason] : []));
    return { next: Math.min(...next), failures };
  }

  async #advance(store: ScheduleStore, schedule: StoredSchedule): Promise<number> {
    const now = this.#now();
    const from = this.#watchedFrom ?? now;
    let { next: slot } = schedule;
    if (slot > now) return slot;
    const madeUpAt = slot + (store.patience ?? patience);
    if (slot < from && now < madeUpAt) return madeUpAt;
    const { pattern, message } = readStored(schedule);
    // Of those that came while no worker lived, one task is enqueued for the last.
    const [missed] = slot < from ? pattern.previousRuns(1, new Date(from)) : [];
    slot = Math.max(slot, missed?.getTime() ?? slot);
    const following = slotAfter(pattern, slot);
    const due = { ...message, id: idOf(slot, schedule.name), args: JSON.parse(message.json) };
    await this.#calls.make('the task of a schedule could not be stored', (expired) =>
      store.advance(schedule, following, due, expired),
    );
    this.#onEnqueued();
    return following;
  }
}

/** Another version may have stored it, or a process that has croner. */
function readStored({ name, definition }: StoredSchedule): Pick<Definition, 'message'> & { readonly pattern: Pattern } {
  try {
    const { cron, timeZone, message }: Definition = JSON.parse(definition);
    return { pattern: readPattern(cron, timeZone), message };
  } catch (cause) {
    const why = isError(cause) ? cause.message : String(cause);
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `the schedule "${name}" cannot be read: ${why}`, { cause });
  }
}

function checked(options: ScheduleOptions): ScheduleOptions {
  checkOptions('schedule()', options, { cron: isText, timeZone: isText });
  if (options.cron === undefined) throw invalid('"cron" must be a pattern');
  // croner takes a date as well, with one slot.
  if (options.cron.includes(':')) throw invalid(`"cron" must be a pattern, not the date ${inspectShort(options.cron)}`);
  return options;
}

/** What is used of croner's `Cron`. */
interface Pattern {
  nextRun(after: Date): Date | null;
  previousRuns(count: number, before: Date): Date[];
}

function readPattern(cron: string, timeZone: string): Pattern {
  const { Cron } = loadCroner();
  try {
    const pattern = new Cron(cron, { timezone: timeZone, paused: true });
    pattern.nextRun(); // It looks at the time zone only then.
    return pattern;
  } catch (cause) {
    throw invalid(`"cron" or "timeZone": ${cause instanceof Error ? cause.message : String(cause)}`, { cause });
  }
}

/** Loaded by those only who have schedules. */
function loadCroner(): typeof import('croner') {
  try {
    return require('croner');
  } catch (cause) {
    throw invalid('install croner, which reads the patterns', { cause });
  }
}

function slotAfter(pattern: Pattern, time: number): number {
  return pattern.nextRun(new Date(time))?.getTime() ?? never;
}

function invalid(reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `schedule(): ${reason}`, options);
}

function hasTimes({ definition }: StoredSchedule, cron: string, timeZone: string): boolean {
  try {
    const stored: Definition = JSON.parse(definition);
    return stored.cron === cron && stored.timeZone === timeZone;
  } catch {
    return false; // Somebody else has written it.
  }
}
