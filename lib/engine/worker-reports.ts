// What a worker reports: tasks that failed for good, tasks that it does not know, a store that is out of reach.

import { clearTimeout, monotonicTime, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import type { Reporter } from '../task/report.js';
import type { TaskInfo } from '../task/types.js';

export interface ReportedTask extends TaskInfo {
  /** JSON of its arguments, if they were read. */
  readonly json?: string | undefined;
}

export abstract class WorkerReports {
  readonly #reporter: Reporter;
  readonly #open = new Set<Promise<void>>();
  /** When a line was last logged of which there may be many. */
  readonly #toldAt = new Map<string, number>();
  /** The ids of those that were reported. */
  readonly #unknown = new Set<string>();
  readonly #unknownNames = new Map<string, { readonly at: number; more: number }>();

  constructor(reporter: Reporter) {
    this.#reporter = reporter;
  }

  /** For a task that failed for good, or that no worker knows. */
  report({ id, name, attempt, json }: ReportedTask, error: unknown): void {
    this.#track(() => this.#reporter.report(error, { task: { id, name, attempt }, args: argsOf(json) }));
  }

  /**
   * For a task that this worker does not know: reported once, however often the worker meets it. An `onError` hears of each; a
   * logger gets a line for each name, and at most once a minute how many more there were.
   */
  reportUnknown(info: ReportedTask): void {
    if (this.#unknown.has(info.id)) return;
    if (this.#unknown.size === mostUnknown) this.#unknown.clear();
    this.#unknown.add(info.id);
    if (this.#reporter.hasHook) {
      this.report(info, unknownTaskError(info.name));
      return;
    }
    const told = this.#unknownNames.get(info.name);
    if (told !== undefined && monotonicTime() < told.at + silence) {
      told.more++;
      return;
    }
    if (this.#unknownNames.size === mostUnknown) this.#unknownNames.clear();
    this.#unknownNames.set(info.name, { at: monotonicTime(), more: 0 });
    const { id, name, attempt } = info;
    const error = unknownTaskError(name, told?.more);
    this.#track(() =>
      this.#reporter.log(error, { id, name, attempt }, `Background task "${name}" waits: ${error.message}`),
    );
  }

  /**
   * A worker recovers by itself when its store is back, but the logger is told of the outage, at most once a minute. A new text or
   * a short recovery does not make it more often: clients put counters into their messages, and a store may come and go.
   */
  storeFailed(error: unknown): void {
    const message = 'A worker of background tasks cannot reach its store, and tries again';
    this.#logSeldom(message, message, error);
  }

  /** Of a schedule that cannot go on as it is stored. Each is told of at most once a minute: it is looked at every second. */
  scheduleFailed(name: string, error: unknown): void {
    this.#logSeldom(`schedule ${name}`, `The schedule "${name}" of background tasks enqueues nothing`, error);
  }

  /** Waits until all reports have been taken, but not for ever: an `onError` that never settles must not hold up the shutdown. */
  async reported(): Promise<void> {
    if (this.#open.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patience);
    });
    await Promise.race([Promise.all(this.#open), late]);
    clearTimeout(timer);
  }

  /** Where reports are made: with the AsyncLocalStorage stores of the work() call. */
  protected abstract inContext<T>(fn: () => T): T;

  #logSeldom(about: string, message: string, error: unknown): void {
    if (monotonicTime() < (this.#toldAt.get(about) ?? Number.NEGATIVE_INFINITY) + silence) return;
    if (this.#toldAt.size === mostUnknown) this.#toldAt.clear();
    this.#toldAt.set(about, monotonicTime());
    this.#track(() => this.#reporter.log(error, undefined, message));
  }

  #track(report: () => Promise<void> | undefined): void {
    const pending = this.inContext(report);
    if (pending === undefined) return;
    this.#open.add(pending);
    void pending.then(() => this.#open.delete(pending));
  }
}

/** Somebody else may have changed what is stored. */
function argsOf(json = '[]'): readonly unknown[] {
  try {
    const args: unknown = JSON.parse(json);
    return Array.isArray(args) ? args : [];
  } catch {
    return [];
  }
}

const mostUnknown = 10_000;

/** The time between two lines about an outage, or about the same name, in ms. */
const silence = 60_000;

/** How long close() waits for reports that `onError` or the logger still works on, in ms. */
const patience = 4500;

/** `more`: how many other tasks of that name were met since it was last logged. */
export function unknownTaskError(name: string, more = 0): BackgroundTasksError {
  const others = more > 0 ? ` (${more} more like it since the last report)` : '';
  return new BackgroundTasksError(
    'ERR_UNKNOWN_TASK',
    `no worker here knows the task "${name}": pass it to work()${others}`,
  );
}
