// Does what no task waits for: removes old records, reports unknown tasks, repairs times after the clock was set back. It has a
// timer of its own, so that it is not held up by tasks that come without pause.

import { clearTimeout, monotonicTime, setTimeout, wallClockTime } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { GroupCommit, Write } from './commits.js';
import { isBusy } from './database.js';
import type { KnownNames } from './known-names.js';
import { UnknownTasks } from './unknown.js';
import type { QueuedTask, UpkeepTable } from './upkeep-table.js';

export interface UpkeepSettings {
  /** In ms. A process notes the names that it knows this often, and each note is valid for twice as long. */
  readonly lease: number;
  readonly pollInterval: number;
  readonly retention: number;
  /** The runners of the workers that still take tasks. The first one reports. */
  readonly runners: () => MessageRunner[];
}

/** At most this many records are removed in one transaction. */
const batch = 100;

/** Between two transactions that remove records, in ms, so that other processes can write too. */
const removalPause = 1;

/** Between tries to note the names, in ms. */
const noteRetry = 1000;

/** Unknown tasks are looked for this long after the start, in ms, when processes that start together have noted their names. */
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
  /** When to note the names again. */
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

  /** Call it for each new worker. */
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

  /** If several processes find a task, the one that stores the time of the report makes it. */
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
