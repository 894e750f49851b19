// Decides which response's list goes on when: slots, time slices, idle() and close(). A list decides what happens to its tasks.

import { AsyncResource } from 'node:async_hooks';
import { monotonicTime, setImmediate } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { Attempt } from '../task/attempt.js';
import { type Scope, scope } from '../task/scope.js';
import type { TaskOutcome } from '../task/types.js';
import { TimeSlice } from '../time-slice.js';
import { type Closable, type CloseReport, Closing } from './closing.js';
import { LinkedSet } from './linked-set.js';
import type { ListRunner, TaskList } from './list.js';
import { Queue } from './queue.js';
import { ReportScope, Reports } from './reports.js';
import type { Settings } from './settings.js';
import type { TaskSnapshot } from './snapshot.js';
import { type Caller, Waiters } from './waiters.js';

/** How many tasks are pending and running at this moment, and how many have ended in which way since the start. */
export interface Stats {
  pending: number;
  running: number;
  succeeded: number;
  failed: number;
  skipped: number;
  cancelled: number;
  abandoned: number;
}

export class Runner implements ListRunner, Closable {
  readonly settings: Settings;
  readonly reports: Reports;
  readonly waiters = new Waiters(this);
  /** The lists with tasks that have not ended. close() gives them up at its timeout. */
  readonly live = new LinkedSet<TaskList>();
  /** The lists that go on as soon as the time slice allows. */
  readonly #ready = new Queue<TaskList>();
  /** The lists that wait for one of the `concurrency` slots. */
  readonly #waiting = new Queue<TaskList>();
  readonly #stats: Stats = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };
  #freeSlots: number;
  /** True from the moment at which a list is ready until none is. */
  #isPumping = false;
  /**
   * A turn of the event loop runs in the context of the response whose list was ready first. The lists of other responses run in
   * this one: otherwise the AsyncLocalStorage stores of the first response would live as long as their tasks.
   */
  readonly #neutral = new AsyncResource('BackgroundTasks');
  readonly #slice = new TimeSlice();
  isClosed = false;
  #closing: Closing | undefined = undefined;
  /** Set from the timeout of close() until all tasks that were left are given up. */
  #givingUp: Iterator<unknown> | undefined = undefined;

  constructor(settings: Settings) {
    this.settings = settings;
    this.reports = new Reports(settings.reporter, () => this.waiters.check());
    this.#freeSlots = settings.concurrency;
  }

  get stats(): Stats {
    return { ...this.#stats };
  }

  get unfinished(): number {
    return this.#stats.pending + this.#stats.running;
  }

  /** Throws if no task can be accepted. */
  admit(): void {
    if (this.isClosed) {
      throw new BackgroundTasksError('ERR_TASKS_CLOSED', 'add(): no more tasks are accepted after close()');
    }
    const { maxPending } = this.settings;
    if (this.unfinished >= maxPending) {
      throw new BackgroundTasksError(
        'ERR_TASKS_OVERLOADED',
        `add(): ${maxPending} tasks (maxPending) have not ended yet`,
      );
    }
  }

  added(list: TaskList): void {
    this.#stats.pending++;
    this.live.add(list);
  }

  began(): void {
    this.#stats.pending--;
    this.#stats.running++;
  }

  ended(was: 'pending' | 'running', status: TaskOutcome['status']): void {
    this.#stats[was]--;
    this.#stats[status]++;
    this.waiters.check();
  }

  enter(list: TaskList): void {
    if (this.#freeSlots > 0) {
      this.#freeSlots--;
      list.begin();
      this.#ready.push(list);
      this.#schedulePump();
    } else {
      this.#waiting.push(list);
    }
  }

  get hasWaiting(): boolean {
    return !this.#waiting.isEmpty;
  }

  giveWay(list: TaskList): void {
    this.#waiting.push(list);
    this.#passSlot();
  }

  leave(list: TaskList): void {
    this.live.delete(list);
    this.#passSlot();
  }

  #passSlot(): void {
    const next = this.#waiting.shift();
    if (next === undefined) {
      this.#freeSlots++;
    } else {
      next.begin();
      this.queue(next);
    }
  }

  queue(list: TaskList): void {
    this.#ready.push(list);
    if (!this.#isPumping) this.#neutral.runInAsyncScope(this.#schedulePump, this);
  }

  isSliceOver(): boolean {
    return this.#givingUp !== undefined || this.#slice.isOver();
  }

  /** What has not ended: all that run, then all that wait, each in the order of their responses. */
  list(): TaskSnapshot[] {
    const now = monotonicTime();
    const all = this.live.toArray().flatMap((list) => [...list.snapshots(now)]);
    const isRunning = ({ status }: TaskSnapshot): boolean => status === 'running';
    return [...all.filter(isRunning), ...all.filter((snapshot) => !isRunning(snapshot))];
  }

  idle(): Promise<void> {
    const caller = this.#caller();
    return new Promise((resolve) => {
      this.waiters.wait(caller === undefined ? 'all' : 'free', resolve);
    });
  }

  close(timeout: number): Promise<CloseReport> {
    this.#closing ??= new Closing(this);
    return this.#closing.call(timeout, this.#caller());
  }

  /** The task or report of this runner in which the calling code runs. */
  #caller(): Caller | undefined {
    const caller = this.#findCaller(scope.getStore());
    if (caller !== undefined) this.waiters.addCaller(caller);
    return caller;
  }

  #findCaller(here: Scope | undefined): Caller | undefined {
    if (here instanceof ReportScope) return here.reports === this.reports && here.isOpen ? { report: here } : undefined;
    if (!(here instanceof Attempt)) return undefined;
    const list = this.live.toArray().find((each) => each.isRunning(here));
    return list && { attempt: here, list };
  }

  giveUp(steps: Iterator<unknown>): void {
    this.#givingUp = steps;
    this.#slice.begin();
    this.#neutral.runInAsyncScope(() => {
      this.#runSlice();
      if (this.#hasWork) this.#schedulePump();
    });
  }

  #schedulePump(): void {
    if (this.#isPumping) return;
    this.#isPumping = true;
    setImmediate(this.#pump);
  }

  readonly #pump = (): void => {
    this.#slice.begin();
    this.#runNext();
    this.#isPumping = this.#hasWork;
    if (this.#isPumping) this.#neutral.runInAsyncScope(this.#goOn, this);
  };

  #goOn(): void {
    this.#runSlice();
    this.#isPumping = this.#hasWork;
    if (this.#isPumping) setImmediate(this.#pump);
  }

  #runSlice(): void {
    while (this.#hasWork && !this.#slice.isOver()) this.#runNext();
  }

  #runNext(): void {
    if (this.#givingUp === undefined) this.#ready.shift()?.advance();
    else if (this.#givingUp.next().done === true) this.#givingUp = undefined;
  }

  get #hasWork(): boolean {
    return this.#givingUp !== undefined || !this.#ready.isEmpty;
  }
}
