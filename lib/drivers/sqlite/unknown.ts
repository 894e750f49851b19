// Finds the tasks that nobody here knows, each of them once, however many there are: a walk through the ready tasks, some at a
// time, again and again.

import { monotonicTime } from '../../clock.js';
import type { TaskInfo } from '../../task/types.js';
import type { Position, QueuedTask, UpkeepTable } from './upkeep-table.js';

/** How long an unknown task is left to workers of other processes before it is found, and between walks, in ms. */
const unknownAfter = 1000;

/** At most so many tasks are read in one step, by at most so many looks at the table. */
const stepSize = 250;

/** Between steps, in ms. */
const stepPause = 10;

/** Walks take at most this part of the time. */
const share = 0.05;

export class UnknownTasks {
  readonly #isKnown: (name: string) => boolean;
  /** For so many ms after it has run tasks of a name, another process is thought to know it. */
  readonly #lease: number;
  readonly #found = new SeqSet();
  #walk: Walk | undefined = undefined;
  #nextStepAt = 0;

  constructor(isKnown: (name: string) => boolean, lease: number) {
    this.#isKnown = isKnown;
    this.#lease = lease;
  }

  /** When to call {@link step}, in ms from now. */
  get stepIn(): number {
    return this.#nextStepAt - monotonicTime();
  }

  /** Takes a step, and returns those that it was the first to find. */
  step(table: UpkeepTable, now: number): TaskInfo[] {
    const startedAt = monotonicTime();
    // Not where a worker of another process runs tasks of that name: it is only busy.
    const walk = this.#walk ?? new Walk(table.worked(now - this.#lease));
    this.#walk = walk;
    const found: TaskInfo[] = [];
    for (const { seq, id, name, attempt, runAt } of walk.next(table, this.#isKnown)) {
      // One that is ready before its time was stored before the clock was set back.
      if (runAt > now - unknownAfter && runAt <= now) continue;
      walk.seen.add(seq);
      if (this.#found.has(seq)) continue;
      this.#found.add(seq);
      found.push({ id, name, attempt });
    }
    walk.spent += monotonicTime() - startedAt;
    this.#nextStepAt = monotonicTime() + (walk.isOver ? this.#end(walk) : stepPause);
    return found;
  }

  #end({ seen, spent }: Walk): number {
    if (this.#found.isLarge) this.#found.replaceBy(seen);
    this.#walk = undefined;
    return Math.max(unknownAfter, spent / share);
  }
}

class Walk {
  readonly seen = new SeqSet();
  /** How long its steps took, in ms. */
  spent = 0;
  isOver = false;
  readonly #worked: ReadonlySet<string>;
  #name = '';
  /** The last task that was read of that name. */
  #position: Position | undefined = undefined;

  constructor(worked: ReadonlySet<string>) {
    this.#worked = worked;
  }

  /** Some tasks whose name is neither known nor worked. */
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
    if (!isKnown(name) && !this.#worked.has(name)) this.#toNextPriority(table, Number.POSITIVE_INFINITY);
  }

  #toNextPriority(table: UpkeepTable, below: number): void {
    const priority = table.nextPriority(this.#name, below);
    this.#position = priority === undefined ? undefined : { priority, seq: 0 };
  }
}

/** Numbers that mostly lie close together. Each takes a bit of memory then, and some 40 bytes at worst. */
class SeqSet {
  #words = new Map<number, number>();

  /** Whether it may take more than some 5 MB. */
  get isLarge(): boolean {
    return this.#words.size > 100_000;
  }

  has(seq: number): boolean {
    return ((this.#words.get(Math.floor(seq / wordSize)) ?? 0) & (1 << (seq % wordSize))) !== 0;
  }

  add(seq: number): void {
    const index = Math.floor(seq / wordSize);
    this.#words.set(index, (this.#words.get(index) ?? 0) | (1 << (seq % wordSize)));
  }

  replaceBy(other: SeqSet): void {
    this.#words = other.#words;
  }
}

/** So many bits are in a number that V8 stores without an object of its own. */
const wordSize = 30;
