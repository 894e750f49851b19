// Finds the tasks that no worker of this process knows, each of them once, however many there are: a walk through the tasks that
// wait, in the order in which they became ready.

import { clearTimeout, monotonicTime, setTimeout } from '../../clock.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { firstPosition, type JobTable, type Position } from './table.js';
import { type WaitingJob, waiting, worked } from './waiting.js';

/** So many tasks are read in one step. */
const stepSize = 250;

/** Between steps, and at least between walks, in ms. */
const stepPause = 10;
const walkPause = 1000;

/** The steps take at most this part of the time. */
const share = 0.2;

/** So many names are remembered. */
const mostNames = 10_000;

export class UnknownTasks {
  readonly #table: JobTable;
  readonly #runners: ReadonlySet<MessageRunner>;
  readonly #patience: number;
  #position = firstPosition;
  /** The last task that was reported, by name. */
  readonly #reported = new Map<string, Position>();
  /** A place before the first task that was left to other processes, by name. */
  readonly #left = new Map<string, Position>();
  #timer: NodeJS.Timeout | undefined = undefined;
  #walking = Promise.resolve();
  #isStopped = true;

  /** `runners`: those of this process. `patience`: for so many ms a task is left to other processes. */
  constructor(table: JobTable, runners: ReadonlySet<MessageRunner>, patience: number) {
    this.#table = table;
    this.#runners = runners;
    this.#patience = patience;
  }

  start(): void {
    if (!this.#isStopped) return;
    this.#isStopped = false;
    this.#setTimer(walkPause);
  }

  /** Begins anew: what a worker knew that is gone has been passed. */
  restart(): void {
    this.#position = firstPosition;
  }

  async stop(): Promise<void> {
    this.#isStopped = true;
    clearTimeout(this.#timer);
    await this.#walking;
  }

  #setTimer(delay: number): void {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => {
      this.#walking = this.#walking.then(() => this.#walk());
    }, delay);
  }

  async #walk(): Promise<void> {
    const begin = monotonicTime();
    // Where PostgreSQL is away, the next step tries again.
    const isMoreWaiting = await this.#step().catch(() => false);
    const pause = Math.max(isMoreWaiting ? stepPause : walkPause, (monotonicTime() - begin) / share);
    if (!this.#isStopped) this.#setTimer(pause);
  }

  async #step(): Promise<boolean> {
    await this.#goBack();
    const from = this.#position;
    const known = [...this.#runners].flatMap(({ names }) => names);
    const { jobs, end } = await waiting(this.#table, from, known, this.#patience, stepSize);
    const workedNames = await worked(this.#table, [...new Set(jobs.map(({ name }) => name))]);
    for (const job of jobs) {
      if (!workedNames.has(job.name)) this.#report(job);
      else if (!this.#left.has(job.name) && this.#left.size < mostNames) this.#left.set(job.name, from);
    }
    if (this.#position === from) this.#position = end;
    return jobs.length === stepSize;
  }

  /** To tasks that were left to other processes, which work such tasks no more. */
  async #goBack(): Promise<void> {
    const workedNames = await worked(this.#table, [...this.#left.keys()]);
    for (const [name, position] of this.#left) {
      if (workedNames.has(name)) continue;
      this.#left.delete(name);
      if (isBefore(position, this.#position)) this.#position = position;
    }
  }

  #report({ id, name, attempt, position }: WaitingJob): void {
    const [runner] = this.#runners;
    if (runner === undefined || runner.isKnownHere(name)) return; // It was closed, or has begun, meanwhile.
    const last = this.#reported.get(name);
    if (last !== undefined && !isBefore(last, position)) return;
    if (last === undefined && this.#reported.size === mostNames) this.#reported.clear();
    this.#reported.set(name, position);
    runner.reportUnknown({ id, name, attempt });
  }
}

function isBefore(one: Position, other: Position): boolean {
  return one.at === other.at ? one.id < other.id : one.at < other.at;
}
