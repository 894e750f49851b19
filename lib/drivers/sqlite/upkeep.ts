// What one process does for the table besides its tasks, on a timer of its own, so that it is done while tasks come without
// pause: removes tasks that are over for long, finds those that nobody knows, notices that the clock was set back.

import { clearTimeout, setTimeout, wallClockTime } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { GroupCommit, Write } from './commits.js';
import { isBusy } from './database.js';
import { UnknownTasks } from './unknown.js';
import type { UpkeepTable } from './upkeep-table.js';

export interface UpkeepSettings {
  /** In ms: for so long after it has run tasks of a name, another process is thought to know it. */
  readonly lease: number;
  readonly pollInterval: number;
  readonly retention: number;
  /** The runner that reports, of a worker that still takes tasks. */
  readonly runner: () => MessageRunner | undefined;
}

/** So many finished tasks are removed in one transaction. */
const batch = 100;

/** Between two transactions that remove tasks, in ms: other processes want to write too. */
const removalPause = 1;

export class Upkeep {
  readonly #table: UpkeepTable;
  readonly #commits: GroupCommit;
  readonly #settings: UpkeepSettings;
  readonly #unknown: UnknownTasks;
  readonly #removal: Write;
  readonly #repair: Write;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isStopped = true;

  constructor(table: UpkeepTable, commits: GroupCommit, settings: UpkeepSettings) {
    this.#table = table;
    this.#commits = commits;
    this.#settings = settings;
    this.#unknown = new UnknownTasks((name) => settings.runner()?.isKnownHere(name) ?? true, settings.lease);
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
  }

  start(): void {
    if (!this.#isStopped) return;
    this.#isStopped = false;
    this.#setTimer(0);
  }

  stop(): void {
    this.#isStopped = true;
    clearTimeout(this.#timer);
  }

  readonly #tick = (): void => {
    const runner = this.#settings.runner();
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
    if (this.#table.isAnyAhead(now)) this.#commits.addLast(this.#repair);
    if (this.#table.isAnyFinished(now - this.#settings.retention)) this.#commits.addLast(this.#removal);
    if (this.#unknown.stepIn <= 0) {
      for (const info of this.#unknown.step(this.#table, now)) runner.reportUnknown(info);
    }
    this.#setTimer(Math.max(1, Math.min(this.#settings.pollInterval, this.#unknown.stepIn)));
  }

  #setTimer(delay: number): void {
    clearTimeout(this.#timer);
    if (!this.#isStopped) this.#timer = setTimeout(this.#tick, delay);
  }
}
