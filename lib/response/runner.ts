// Runs the lists of all responses: order, isolation, time slice, concurrency, idle and close.

import type { Request, Response } from 'express';
import { clearTimeout, monotonicTime, setImmediate, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { ignore, isAwaitable } from '../foreign-value.js';
import { Attempt, type AttemptOwner } from '../task/attempt.js';
import { readTaskOptions, type TaskSettings } from '../task/options.js';
import { retryDelay } from '../task/retry.js';
import type { Scope, TaskAdder } from '../task/scope.js';
import type { TaskInfo, TaskOutcome } from '../task/types.js';
import type { Condition, ResponseOutcome } from '../task/when.js';
import type { AddedTask, TaskOwner } from './added-task.js';
import { type Linkable, LinkedSet } from './linked-set.js';
import { Queue, type Queueable } from './queue.js';
import type { Settings } from './settings.js';

/** Counts of tasks: the first two of this moment, the others since the start. */
export interface Stats {
  pending: number;
  running: number;
  succeeded: number;
  failed: number;
  skipped: number;
  cancelled: number;
  abandoned: number;
}

/** What `close()` resolves with, counted from its call on. */
export interface CloseReport {
  succeeded: number;
  failed: number;
  /** The tasks that had not ended at the timeout. */
  abandoned: TaskInfo[];
}

/** Where code of the response runs outside of its tasks. */
export interface ResponseScope extends Scope {
  readonly response: TaskAdder;
}

/** After this many ms of tasks the event loop gets its turn. */
const timeSlice = 5;

/** What `when` said of a response. */
type Answer = { readonly isWanted: boolean } | { readonly error: unknown };

/** The tasks of one response on their way through the runner. */
export class TaskList implements TaskOwner, AttemptOwner, Queueable<TaskList>, Linkable<TaskList> {
  next: TaskList | undefined = undefined;
  newer: TaskList | undefined = undefined;
  older: TaskList | undefined = undefined;
  isLinked = false;
  readonly tasks = new Queue<AddedTask>();
  /** Set once the response is over. */
  outcome: ResponseOutcome | undefined = undefined;
  /** What `when` of the middleware said of the outcome, once it was asked. */
  answer: Answer | undefined = undefined;
  /** `idle`: the response or, if that is over, another task is waited for. `queued`: waits for its turn. */
  state: 'idle' | 'queued' | 'running' = 'idle';
  /** The task whose attempts are under way. */
  current: AddedTask | undefined = undefined;
  /** The attempt under way or, before the next one, the last one of the current task. */
  attempt: Attempt | undefined = undefined;
  /** In the backoff, what the last attempt failed with: nobody has heard of it yet. */
  failure: { readonly cause: unknown } | undefined = undefined;
  /** The current task was cancelled. */
  isCancelled = false;
  retryTimer: NodeJS.Timeout | undefined = undefined;
  /** Reports of its tasks on which onError or the logger still works. */
  openReports = 0;
  /** Settles the promise that `waitUntil` was given. */
  onEnd: (() => void) | undefined = undefined;
  readonly #runner: Runner;

  constructor(
    runner: Runner,
    /** Undefined where the response is gone. */
    readonly req: Request | undefined,
    readonly res: Response | undefined,
    readonly scope: ResponseScope,
  ) {
    this.#runner = runner;
  }

  cancel(task: AddedTask): void {
    this.#runner.cancel(this, task);
  }

  attemptOver(attempt: Attempt): void {
    this.#runner.resume(this, attempt);
  }
}

export class Runner {
  readonly #settings: Settings;
  /** Lists with tasks that have not ended: what close() drops at its timeout. */
  readonly #live = new LinkedSet<TaskList>();
  /** Lists that run as soon as the time slice allows. */
  readonly #ready = new Queue<TaskList>();
  /** Lists that wait for one of the `concurrency` slots. */
  readonly #waiting = new Queue<TaskList>();
  readonly #stats: Stats = { pending: 0, running: 0, succeeded: 0, failed: 0, skipped: 0, cancelled: 0, abandoned: 0 };
  #freeSlots: number;
  #isPumpScheduled = false;
  #sliceEnd = 0;
  /** Reports on which onError or the logger still works. */
  #openReports = 0;
  #idleListeners: (() => void)[] = [];
  #isIdleCheckScheduled = false;
  #isClosed = false;
  #closing: Promise<CloseReport> | undefined = undefined;
  #endClosing: (() => void) | undefined = undefined;
  #closeTimer: NodeJS.Timeout | undefined = undefined;
  /** When the timer is due. */
  #closeTimeout = Number.POSITIVE_INFINITY;
  /** What `close()` has given up. */
  readonly #abandoned: TaskInfo[] = [];

  constructor(settings: Settings) {
    this.#settings = settings;
    this.#freeSlots = settings.concurrency;
  }

  get stats(): Stats {
    return { ...this.#stats };
  }

  /** Throws where no task can be accepted. */
  admit(): void {
    if (this.#isClosed) {
      throw new BackgroundTasksError('ERR_TASKS_CLOSED', 'add(): the background tasks are closed, after close()');
    }
    const { maxPending } = this.#settings;
    if (this.#stats.pending + this.#stats.running >= maxPending) {
      throw new BackgroundTasksError(
        'ERR_TASKS_OVERLOADED',
        `add(): ${maxPending} tasks have not ended yet (maxPending)`,
      );
    }
  }

  /** Takes an admitted task into its list. The list runs once its response is over, and again if it had ended. */
  add(list: TaskList, task: AddedTask): void {
    this.#stats.pending++;
    list.tasks.push(task);
    this.#live.add(list);
    if (list.state === 'idle' && list.outcome !== undefined) this.start(list);
  }

  /** For an idle list whose response is over. */
  start(list: TaskList): void {
    if (this.#freeSlots > 0) {
      this.#freeSlots--;
      this.#makeReady(list);
    } else {
      list.state = 'queued';
      this.#waiting.push(list);
    }
  }

  /** Tells `waitUntil` of a list that got its first task. */
  keepAlive(list: TaskList, first: AddedTask): void {
    const { waitUntil } = this.#settings;
    if (waitUntil !== undefined) void this.#tellHost(list, first, waitUntil);
  }

  /** An attempt that was awaited is over. Within the time slice the list goes on at once. */
  resume(list: TaskList, attempt: Attempt): void {
    if (list.current === undefined || !this.#decide(list, list.current, attempt)) return;
    if (this.#isSliceOver()) this.#makeReady(list);
    else this.#advance(list);
  }

  /** An attempt under way goes on to its end, a wait for the next one does not. */
  cancel(list: TaskList, task: AddedTask): void {
    if (list.current !== task) {
      this.#settle(list, task, 'cancelled');
      return;
    }
    list.isCancelled = true;
    list.attempt?.abort(new DOMException('The task was cancelled', 'AbortError'));
    if (list.retryTimer === undefined) return;
    clearTimeout(list.retryTimer);
    list.retryTimer = undefined;
    this.#makeReady(list);
  }

  idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#whenIdle(resolve);
    });
  }

  /** Called again, it returns the same promise, and the shortest of the timeouts counts. */
  close(timeout: number): Promise<CloseReport> {
    this.#closing ??= this.#startClosing();
    this.#giveUpAfter(timeout);
    return this.#closing;
  }

  #startClosing(): Promise<CloseReport> {
    const { succeeded, failed } = this.#stats;
    return new Promise((resolve) => {
      this.#endClosing = () => {
        this.#isClosed = true;
        clearTimeout(this.#closeTimer);
        resolve({
          succeeded: this.#stats.succeeded - succeeded,
          failed: this.#stats.failed - failed,
          abandoned: this.#abandoned,
        });
      };
      this.#whenIdle(this.#endClosing);
    });
  }

  #giveUpAfter(timeout: number): void {
    const end = monotonicTime() + timeout;
    if (this.#isClosed || end >= this.#closeTimeout) return;
    this.#closeTimeout = end;
    clearTimeout(this.#closeTimer);
    this.#closeTimer = setTimeout(() => {
      this.#isClosed = true;
      this.#abandonAll(`it had not ended when close() reached its timeout of ${timeout} ms`);
      this.#endClosing?.();
    }, timeout);
  }

  async #tellHost(list: TaskList, first: AddedTask, waitUntil: (work: Promise<void>) => unknown): Promise<void> {
    const work = new Promise<void>((resolve) => {
      list.onEnd = resolve;
    });
    try {
      await waitUntil(work);
    } catch (error) {
      const message = 'waitUntil failed; the tasks run all the same';
      const pending = this.#settings.reporter.log(error, first.info(0), message);
      if (pending !== undefined) void this.#followReport(list, pending);
    }
  }

  #makeReady(list: TaskList): void {
    list.state = 'queued';
    this.#ready.push(list);
    if (this.#isPumpScheduled) return;
    this.#isPumpScheduled = true;
    setImmediate(this.#pump);
  }

  readonly #pump = (): void => {
    this.#sliceEnd = monotonicTime() + timeSlice;
    let list = this.#ready.shift();
    while (list !== undefined) {
      this.#advance(list);
      list = this.#isSliceOver() ? undefined : this.#ready.shift();
    }
    this.#isPumpScheduled = !this.#ready.isEmpty;
    if (this.#isPumpScheduled) setImmediate(this.#pump);
  };

  #isSliceOver(): boolean {
    return monotonicTime() >= this.#sliceEnd;
  }

  /** Runs the list until an attempt has to be awaited, the slice is over, or no task is left. */
  #advance(list: TaskList): void {
    list.state = 'running';
    do {
      const task = list.current ?? list.tasks.shift();
      if (task === undefined) {
        this.#end(list);
        return;
      }
      if (!this.#run(list, task)) return;
    } while (!this.#isSliceOver());
    this.#makeReady(list);
  }

  /** Returns true once the task is over, false while something has to be awaited. */
  #run(list: TaskList, task: AddedTask): boolean {
    const settings = this.#settingsOf(task);
    if (list.current === undefined) {
      if (!this.#begins(list, task, settings)) return true;
    } else if (list.isCancelled) {
      this.#settle(list, task, 'cancelled');
      return true;
    }
    const attempt = new Attempt(task.identity, (list.attempt?.attempt ?? 0) + 1, list.scope);
    list.attempt = attempt;
    list.failure = undefined;
    return attempt.run(task, settings.timeout, list) && this.#decide(list, task, attempt);
  }

  /** Makes the task the current one, unless it was cancelled, which `when` too may do, or `when` is against it. */
  #begins(list: TaskList, task: AddedTask, { when }: TaskSettings): boolean {
    if (task.status !== 'pending') return false;
    if (when !== undefined && !this.#passes(list, task, when)) return false;
    this.#stats.pending--;
    this.#stats.running++;
    list.current = task;
    task.begin();
    return true;
  }

  /** Settles a task that does not. */
  #passes(list: TaskList, task: AddedTask, when: NonNullable<Condition>): boolean {
    const answer = this.#ask(list, task, when);
    if (task.status !== 'pending') return false;
    if ('error' in answer) this.#fail(list, task, answer.error);
    else if (!answer.isWanted) this.#settle(list, task, 'skipped');
    return 'isWanted' in answer && answer.isWanted;
  }

  /** The middleware's `when` is asked once per response, a task's own once per task. */
  #ask(list: TaskList, task: AddedTask, when: NonNullable<Condition>): Answer {
    if (when !== this.#settings.when) return ask(list, task, when);
    list.answer ??= ask(list, task, when);
    return list.answer;
  }

  #settingsOf({ options }: AddedTask): TaskSettings {
    return options === undefined ? this.#settings : readTaskOptions(options, this.#settings);
  }

  /** What follows from the end of an attempt. Returns true if the task is over with it. */
  #decide(list: TaskList, task: AddedTask, over: Attempt): boolean {
    const { attempt, state } = over;
    const result = over.takeResult();
    if (state === 'succeeded') {
      this.#settle(list, task, 'succeeded', result);
      return true;
    }
    if (list.isCancelled) {
      this.#settle(list, task, 'cancelled');
      return true;
    }
    const { backoff } = this.#settingsOf(task);
    if (backoff === undefined || attempt > backoff.limit) {
      this.#fail(list, task, result);
      return true;
    }
    list.failure = { cause: result };
    list.retryTimer = setTimeout(
      () => {
        list.retryTimer = undefined;
        this.#makeReady(list);
      },
      retryDelay(attempt, backoff),
    );
    return false;
  }

  #fail(list: TaskList, task: AddedTask, error: unknown): void {
    // First, as onError may add tasks that deal with the failure.
    if (this.#settings.stopOnError) this.#skipAll(list);
    this.#settle(list, task, 'failed', error);
  }

  #skipAll(list: TaskList): void {
    for (let task = list.tasks.shift(); task !== undefined; task = list.tasks.shift()) {
      if (task.status === 'pending') this.#settle(list, task, 'skipped');
    }
  }

  /** The only way in which a task ends: counted once, reported once if it failed or was abandoned. */
  #settle(list: TaskList, task: AddedTask, status: TaskOutcome['status'], result?: unknown): void {
    let attempts: number | undefined;
    if (list.current === task) {
      attempts = list.attempt?.attempt;
      list.current = undefined;
      list.attempt = undefined;
      list.failure = undefined;
      list.isCancelled = false;
      this.#stats.running--;
    } else {
      this.#stats.pending--;
    }
    this.#stats[status]++;
    task.settle(status, result);
    if (status === 'failed' || status === 'abandoned') this.#report(list, task, attempts ?? 0, result);
    task.release();
    this.#checkIdle();
  }

  /** In the context of the task's add(), so that a logger finds what AsyncLocalStorage held there. */
  #report(list: TaskList, task: AddedTask, attempt: number, error: unknown): void {
    const { req, res } = list;
    const { reporter } = this.#settings;
    const context = { task: task.info(attempt), ...(req && { req }), ...(res && { res }) };
    const pending = task.inContext(list.scope, () => reporter.report(error, context));
    if (pending !== undefined) void this.#followReport(list, pending);
  }

  async #followReport(list: TaskList, pending: Promise<void>): Promise<void> {
    list.openReports++;
    this.#openReports++;
    await pending;
    list.openReports--;
    this.#openReports--;
    this.#checkEnd(list);
    this.#checkIdle();
  }

  #end(list: TaskList): void {
    list.state = 'idle';
    this.#checkEnd(list);
    this.#live.delete(list);
    this.#freeSlots++;
    const waiting = this.#waiting.shift();
    if (waiting !== undefined) this.start(waiting);
  }

  #abandonAll(reason: string): void {
    const abandon = (list: TaskList, task: AddedTask): void => {
      const attempt = list.current === task ? list.attempt : undefined;
      const message = `task "${task.name}" was abandoned: ${reason}`;
      const error = new BackgroundTasksError(
        'ERR_TASK_ABANDONED',
        message,
        list.current === task ? list.failure : undefined,
      );
      attempt?.drop(error);
      this.#abandoned.push(task.info(attempt?.attempt ?? 0));
      this.#settle(list, task, 'abandoned', error);
    };
    for (const list of this.#live.toArray()) {
      clearTimeout(list.retryTimer);
      if (list.current !== undefined) abandon(list, list.current);
      for (let task = list.tasks.shift(); task !== undefined; task = list.tasks.shift()) {
        if (task.status === 'pending') abandon(list, task);
      }
      // No attempt will resume it any more. A list that waits for its turn ends when that comes.
      if (list.state === 'running') this.#end(list);
      else this.#checkEnd(list);
    }
  }

  /** A serverless host may stop once the tasks of the response have ended and what there was to report has been taken. */
  #checkEnd(list: TaskList): void {
    if (list.state === 'idle' && list.openReports === 0) list.onEnd?.();
  }

  #whenIdle(listener: () => void): void {
    this.#idleListeners.push(listener);
    this.#checkIdle();
  }

  /** In the next turn, so that what follows in the turn of a task's end is waited for, such as an `add` behind `finished`. */
  #checkIdle(): void {
    if (this.#idleListeners.length === 0 || this.#isIdleCheckScheduled || this.#isBusy) return;
    this.#isIdleCheckScheduled = true;
    setImmediate(() => {
      this.#isIdleCheckScheduled = false;
      if (this.#isBusy) return;
      const listeners = this.#idleListeners;
      this.#idleListeners = [];
      for (const listener of listeners) listener();
    });
  }

  get #isBusy(): boolean {
    return this.#stats.pending + this.#stats.running + this.#openReports > 0;
  }
}

function ask(list: TaskList, task: AddedTask, when: NonNullable<Condition>): Answer {
  try {
    // In the context of the task's add(): this code runs wherever the list before it ended.
    const { outcome } = list;
    const answer: unknown = outcome !== undefined && task.inContext(list.scope, () => when({ ...outcome }));
    if (!isAwaitable(answer)) return { isWanted: Boolean(answer) };
    void ignore(answer);
    const message = '"when" must return true or false: it cannot be asynchronous';
    return { error: new BackgroundTasksError('ERR_INVALID_OPTION', message) };
  } catch (error) {
    return { error };
  }
}
