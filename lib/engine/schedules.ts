// Schedules: each slot of a pattern enqueues one task. Any process with a worker may do it, and the store sees to it that one
// does.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout, wallClockTime } from '../clock.js';
import { BackgroundTasksError, hasCode } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { checkOptions, isText } from '../options.js';
import type { Calls } from './calls.js';
import type { EngineDriver, ScheduleStore, StoredSchedule } from './driver.js';
import type { ScheduleOptions, TaskSchedule } from './engine.js';
import { FixedTimes, hasFixedTimes } from './fixed-times.js';
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

/** `schedule`: undefined where all of them fail, since the store is out of reach. */
interface Failure {
  readonly schedule: string | undefined;
  readonly error: unknown;
}

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
  readonly #onFailure: (failure: Failure) => void;
  #timer: NodeJS.Timeout | undefined = undefined;
  /** Since when the slots are watched here; undefined while no worker lives. */
  #watchedFrom: number | undefined = undefined;

  constructor(driver: EngineDriver, calls: Calls, onEnqueued: () => void, onFailure: (failure: Failure) => void) {
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
    // Stores hold UTF-8, where one half would be like the other.
    if (/[\ud800-\udfff]/u.test(name)) throw invalid('the name has half a surrogate pair');
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
    return stored.map((schedule) => {
      const { name, next } = schedule;
      const { cron, timeZone, message, args } = readStored(schedule);
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
      this.#onFailure({ schedule: undefined, error });
    }
    if (this.#watchedFrom !== undefined) this.#setTimer(Math.min(interval, next - this.#now()));
  });

  /**
   * Enqueues what is due. Resolves with when there is more to do, as far as is known. A schedule that fails, because another
   * version has stored its pattern, say, does not hold up the others.
   */
  async enqueueDue(): Promise<{ next: number; failures: Failure[] }> {
    const store = this.#store('schedules()');
    // A look ahead of the interval, so that a slot in it is met at its time.
    const due = await this.#calls.make('the schedules could not be read', (expired) =>
      store.list(this.#now() + interval, expired),
    );
    const advances = due.map((schedule) => this.#advance(store, schedule));
    const results = await Promise.allSettled(advances);
    const next = results.map((result) => (result.status === 'fulfilled' ? result.value : Number.POSITIVE_INFINITY));
    const failures = results.flatMap((result, index): Failure[] => {
      if (result.status === 'fulfilled') return [];
      const error: unknown = result.reason;
      return [{ schedule: hasCode(error, 'ERR_ENGINE_UNAVAILABLE') ? undefined : due[index]?.name, error }];
    });
    return { next: Math.min(...next), failures };
  }

  async #advance(store: ScheduleStore, schedule: StoredSchedule): Promise<number> {
    const now = this.#now();
    const from = this.#watchedFrom ?? now;
    let { next: slot } = schedule;
    if (slot > now) return slot;
    const madeUpAt = slot + (store.patience ?? patience);
    if (slot < from && now < madeUpAt) return madeUpAt;
    const { cron, timeZone, message, args } = readStored(schedule);
    const pattern = readPattern(cron, timeZone, `the schedule "${schedule.name}"`);
    // Of those that came while no worker lived, one task is enqueued for the last.
    const [missed] = slot < from ? pattern.previousRuns(1, new Date(from)) : [];
    slot = Math.max(slot, missed?.getTime() ?? slot);
    const following = slotAfter(pattern, slot);
    const due = { ...message, id: idOf(slot, schedule.name), args };
    await this.#calls.make('the task of a schedule could not be stored', (expired) =>
      store.advance(schedule, following, due, expired),
    );
    this.#onEnqueued();
    return following;
  }
}

/** It may be of another version, or of somebody else. */
function readStored({ name, definition }: StoredSchedule): Definition & { readonly args: unknown[] } {
  try {
    const stored: Definition = JSON.parse(definition);
    return { ...stored, args: JSON.parse(stored.message.json) };
  } catch (cause) {
    throw invalid('it cannot be read', { cause }, `the schedule "${name}"`);
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
  previousRuns(count: 1, before: Date): Date[];
}

function readPattern(cron: string, timeZone: string, of = 'schedule()'): Pattern {
  const croner = loadCroner(of);
  try {
    const pattern = hasFixedTimes(cron)
      ? new FixedTimes(croner, cron, timeZone)
      : new croner.Cron(cron, { timezone: timeZone, paused: true });
    pattern.nextRun(new Date()); // It looks at the time zone only then.
    return pattern;
  } catch (cause) {
    const why = cause instanceof Error ? cause.message : String(cause);
    throw invalid(`"cron" or "timeZone": ${why}`, { cause }, of);
  }
}

/** Loaded by those only who have schedules. */
function loadCroner(of: string): typeof import('croner') {
  try {
    return require('croner');
  } catch (cause) {
    throw invalid('install croner, which reads the patterns', { cause }, of);
  }
}

function slotAfter(pattern: Pattern, time: number): number {
  return pattern.nextRun(new Date(time))?.getTime() ?? never;
}

function invalid(reason: string, options?: ErrorOptions, of = 'schedule()'): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `${of}: ${reason}`, options);
}

function hasTimes(schedule: StoredSchedule, cron: string, timeZone: string): boolean {
  try {
    const stored = readStored(schedule);
    return stored.cron === cron && stored.timeZone === timeZone;
  } catch {
    return false; // Somebody else has written it.
  }
}
