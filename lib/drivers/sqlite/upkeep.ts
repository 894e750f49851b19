// What one process does for the table besides its tasks, on a timer of its own, so that it is done while tasks come without
// pause: removes tasks that are over for long, reports those that nobody knows, notices that the clock was set back.

import { clearTimeout, monotonicTime, setTimeout, wallClockTime } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { GroupCommit, Write } from './commits.js';
import { isBusy } from './database.js';
import type { KnownNames } from './known-names.js';
import { UnknownTasks } from './unknown.js';
import type { QueuedTask, UpkeepTable } from './upkeep-table.js';

export interface UpkeepSettings {
  /** In ms: so often a process notes what names it knows. It is thought to know them for twice as long. */
  readonly lease: number;
  readonly pollInterval: number;
  readonly retention: number;
  /** Those of the workers that still take tasks. The first one reports. */
  readonly runners: () => MessageRunner[];
}

/** So many finished tasks are removed in one transaction. */
const batch = 100;

/** Between two transactions that remove tasks, in ms: other processes want to write too. */
const removalPause = 1;

/** Between tries to note the names, in ms. */
const noteRetry = 1000;

/** Processes that start together may be so far apart, in ms, until all have noted their names. */
const patience = 3000;

export class Upkeep {
  readonly #table: UpkeepTable;
  readonly #commits: GroupCommit;
  readonly #settings: UpkeepSettings;
  readonly #unknown: UnknownTasks;
  readonly #removal: Write;
  readonly #repair: Write;
  readonly #note: Write;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isStopped = true;
  #startedAt = 0;
  /** When the names are to be noted again. */
  #noteAt = 0;

  constructor(table: UpkeepTable, names: KnownNames, commits: GroupCommit, settings: UpkeepSettings) {
    this.#table = table;
    this.#commits = commits;
    this.#settings = settings;
    this.#unknown = new UnknownTasks(table, names);
    let removed = 0;
    this.#removal = {
      isDurable: false,
      apply: () => {
        removed = table.removeFinished(wallClockTime() - settings.retention, batch);
      },
      committed: () => {
        if (removed === batch) this.#setTimer(removalPause);
      },
      failed: () => false, // The next tick tries again.
    };
    this.#repair = {
      isDurable: false,
      apply: () => table.repairClock(wallClockTime()),
      committed: () => {},
      failed: () => false,
    };
    this.#note = {
      isDurable: false,
      apply: () => {
        const known = settings.runners().flatMap((runner) => runner.names);
        names.note(known, wallClockTime(), 2 * settings.lease);
      },
      committed: () => {
        this.#noteAt = monotonicTime() + settings.lease;
      },
      failed: () => false,
    };
  }

  /** To be called with each new worker. */
  start(): void {
    this.#noteAt = monotonicTime();
    if (this.#isStopped) {
      this.#isStopped = false;
      this.#startedAt = wallClockTime();
      this.#unknown.restart(Math.min(patience, this.#settings.lease));
    }
    this.#setTimer(0);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  readonly #tick = (): void => {
    const [runner] = this.#settings.runners();
    if (runner === undefined) {
      this.stop();
      return;
    }
    this.#setTimer(this.#settings.pollInterval);
    try {
      this.#commits.ensure();
      this.#look(runner);
    } catch (error) {
      if (!isBusy(error)) runner.storeFailed(error);
      // The next tick looks again.
    }
  };

  #look(runner: MessageRunner): void {
    const now = wallClockTime();
    if (monotonicTime() >= this.#noteAt) this.#noteNames();
    if (this.#table.isAnyAhead(now)) this.#commits.addLast(this.#repair);
    if (this.#table.isAnyFinished(now - this.#settings.retention)) this.#commits.addLast(this.#removal);
    if (this.#unknown.stepIn <= 0) this.#lookForUnknown(runner, now);
    const noteIn = this.#noteAt - monotonicTime();
    this.#setTimer(Math.max(1, Math.min(this.#settings.pollInterval, this.#unknown.stepIn, noteIn)));
  }

  #noteNames(): void {
    this.#noteAt = monotonicTime() + noteRetry; // Unless it is committed before.
    this.#commits.addLast(this.#note);
  }

  /** Of several processes that find a task one reports it: the one that could store that it does. */
  #lookForUnknown(runner: MessageRunner, now: number): void {
    const found = this.#unknown.step((name) => runner.isKnownHere(name), this.#startedAt, now);
    if (found.length === 0) return;
    let told: QueuedTask[] = [];
    this.#commits.add({
      isDurable: false,
      apply: () => {
        const time = wallClockTime(); // It may have waited for other processes.
        told = found.filter(({ seq }) => this.#table.tell(seq, this.#startedAt, time));
      },
      committed: () => {
        for (const { id, name, attempt } of told) runner.reportUnknown({ id, name, attempt });
      },
      failed: () => false, // The next walk finds them again.
    });
  }

  #setTimer(delay: number): void {
    clearTimeout(this.#timer);
    if (!this.#isStopped) this.#timer = setTimeout(this.#tick, delay);
  }
}
