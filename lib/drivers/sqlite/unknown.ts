// Finds tasks that no process knows. It walks through the ready tasks again and again, a few at a time, so that it does not
// matter how many there are.

import { monotonicTime } from '../../clock.js';
import type { KnownNames } from './known-names.js';
import type { Position, QueuedTask, UpkeepTable } from './upkeep-table.js';

/** A task is unknown only after this many ms, since its worker may be starting. Also the time between two walks. */
const unknownAfter = 1000;

/** A step reads at most this many tasks, by at most as many statements. */
const stepSize = 250;

/** Between steps, in ms. */
const stepPause = 10;

/** Walks take at most this share of the time. */
const share = 0.05;

export class UnknownTasks {
  readonly #table: UpkeepTable;
  readonly #names: KnownNames;
  #namesOfOthers: ReadonlySet<string> = new Set();
  #namesReadAt = Number.NEGATIVE_INFINITY;
  #walk: Walk | undefined = undefined;
  #nextStepAt = 0;

  constructor(table: UpkeepTable, names: KnownNames) {
    this.#table = table;
    this.#names = names;
  }

  /** In how many ms to call {@link step}. */
  get stepIn(): number {
    return this.#nextStepAt - monotonicTime();
  }

  /** Starts a new walk after this many ms. */
  restart(delay: number): void {
    this.#walk = undefined;
    this.#nextStepAt = monotonicTime() + delay;
  }

  /** Takes a step, and returns the unknown tasks in it that nobody has reported since then. */
  step(isKnownHere: (name: string) => boolean, since: number, now: number): QueuedTask[] {
    const startedAt = monotonicTime();
    this.#readNames(now);
    const isKnown = (name: string): boolean => isKnownHere(name) || this.#namesOfOthers.has(name);
    this.#walk ??= new Walk();
    const walk = this.#walk;
    const found = walk.next(this.#table, isKnown).filter(({ runAt, toldAt }) => {
      // A time in the future was stored before the clock was set back.
      const isOld = runAt <= now - unknownAfter || runAt > now;
      return isOld && (toldAt === null || toldAt < since || toldAt > now);
    });
    walk.spent += monotonicTime() - startedAt;
    this.#nextStepAt = monotonicTime() + stepPause;
    if (walk.isOver) this.restart(Math.max(unknownAfter, walk.spent / share));
    return found;
  }

  #readNames(now: number): void {
    if (monotonicTime() < this.#namesReadAt + unknownAfter) return;
    this.#namesOfOthers = this.#names.ofOthers(now);
    this.#namesReadAt = monotonicTime();
  }
}

class Walk {
  /** How long its steps took, in ms. */
  spent = 0;
  isOver = false;
  #name = '';
  /** The last task of that name that was read. */
  #position: Position | undefined = undefined;

  /** Returns the next tasks whose name is not known. */
  next(table: UpkeepTable, isKnown: (name: string) => boolean): QueuedTask[] {
    const tasks: QueuedTask[] = [];
    for (let looks = 0; looks < stepSize && tasks.length < stepSize && !this.isOver; looks++) {
      if (this.#position === undefined) this.#toNextName(table, isKnown);
      else tasks.push(...this.#read(table, this.#position, stepSize - tasks.length));
    }
    return tasks;
  }

  #read(table: UpkeepTable, position: Position, limit: number): QueuedTask[] {
    const tasks = table.queued(this.#name, position, limit);
    const last = tasks.at(-1);
    if (last === undefined || tasks.length < limit) this.#toNextPriority(table, position.priority);
    else this.#position = { priority: position.priority, seq: last.seq };
    return tasks;
  }

  #toNextName(table: UpkeepTable, isKnown: (name: string) => boolean): void {
    const name = table.nextName(this.#name);
    this.isOver = name === undefined;
    if (name === undefined) return;
    this.#name = name;
    if (!isKnown(name)) this.#toNextPriority(table, Number.POSITIVE_INFINITY);
  }

  #toNextPriority(table: UpkeepTable, below: number): void {
    const priority = table.nextPriority(this.#name, below);
    this.#position = priority === undefined ? undefined : { priority, seq: 0 };
  }
}
