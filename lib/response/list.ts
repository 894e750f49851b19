// What happens to the tasks of one response: their order, their attempts and retries, and how each of them ends. The runner
// decides when a list goes on.

import type { Request, Response } from 'express';
import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import type { Attempt } from '../task/attempt.js';
import type { Call } from '../task/call.js';
import { readTaskOptions, type TaskSettings } from '../task/options.js';
import { retryDelay } from '../task/retry.js';
import type { Scope, TaskAdder } from '../task/scope.js';
import type { TaskInfo, TaskOutcome } from '../task/types.js';
import type { Condition, ResponseOutcome } from '../task/when.js';
import type { AddedTask, TaskOwner } from './added-task.js';
import { type Answer, ask, wanted } from './answer.js';
import { KeepAlive } from './keep-alive.js';
import type { Linkable } from './linked-set.js';
import { Queue, type Queueable } from './queue.js';
import type { Failure, Reports } from './reports.js';
import { Run, type RunOwner } from './run.js';
import type { Settings } from './settings.js';
import { snapshotsOf, type TaskSnapshot } from './snapshot.js';

/** Where code of the response runs outside of its tasks. */
export interface ResponseScope extends Scope {
  readonly response: TaskAdder;
}

/** What a list needs of the runner. */
export interface ListRunner {
  readonly settings: Settings;
  readonly reports: Reports;
  /** True once no task is admitted any more. */
  readonly isClosed: boolean;
  /** A task was added and is pending. */
  added(list: TaskList): void;
  /** A pending task has begun. */
  began(): void;
  /** A task that was pending or running has ended. */
  ended(was: 'pending' | 'running', status: TaskOutcome['status']): void;
  /** Calls `begin()` when there is a free slot, and then `advance()`. */
  enter(list: TaskList): void;
  /** Calls `advance()` when it is the list's turn. */
  queue(list: TaskList): void;
  /** True while lists wait for a slot. */
  readonly hasWaiting: boolean;
  /** Gives the slot of a list to the first list that waits for one, and puts the list behind those that wait. */
  giveWay(list: TaskList): void;
  /** Gives up the slot of a list that has ended. */
  leave(list: TaskList): void;
  /** True once the event loop should get its turn. */
  isSliceOver(): boolean;
}

/** What a list is doing. In the states `ready`, `retrying` and `stopping` it waits for the runner to call `advance()`. */
type State =
  /** The response is not over. */
  | { readonly is: 'open' }
  /** The list waits for a slot. */
  | { readonly is: 'queued' }
  /** The next task may begin. */
  | { readonly is: 'ready' }
  /** An attempt is under way. */
  | Run
  /** An attempt has failed, and the next one waits for its delay. */
  | BackingOff
  /** The delay is over, or the task was cancelled meanwhile. */
  | { readonly is: 'retrying'; readonly run: Run }
  /** A task has failed, and `stopOnError` skips those behind it. The report comes afterwards, since onError may add others. */
  | { readonly is: 'stopping'; readonly failure: Failure }
  /** No task is left. The next `add()` starts the list again. */
  | { readonly is: 'ended' };

interface BackingOff {
  readonly is: 'backing off';
  readonly run: Run;
  readonly timer: NodeJS.Timeout;
}

const open: State = { is: 'open' };
const queued: State = { is: 'queued' };
const ready: State = { is: 'ready' };
const ended: State = { is: 'ended' };

export class TaskList implements TaskOwner, RunOwner, Queueable<TaskList>, Linkable<TaskList> {
  next: TaskList | undefined = undefined;
  newer: TaskList | undefined = undefined;
  older: TaskList | undefined = undefined;
  isLinked = false;
  readonly #runner: ListRunner;
  #state: State;
  readonly #tasks = new Queue<AddedTask>();
  /** The first task that was added while other lists waited for this one's slot. They run before it. */
  #behindOthers: AddedTask | undefined = undefined;
  #outcome: ResponseOutcome | undefined;
  /** What `when` of the middleware said. Undefined until it is asked. */
  #answer: Answer | undefined = undefined;
  readonly keepAlive: KeepAlive | undefined;
  /** How many of its tasks are pending or running. */
  unfinished = 0;

  constructor(
    runner: ListRunner,
    /** Undefined where the response is gone. */
    readonly req: Request | undefined,
    readonly res: Response | undefined,
    readonly scope: ResponseScope,
    /** Undefined until the response is over. */
    outcome: ResponseOutcome | undefined,
  ) {
    this.#runner = runner;
    this.#outcome = outcome;
    this.#state = outcome === undefined ? open : ended;
    const { waitUntil } = runner.settings;
    this.keepAlive = waitUntil === undefined ? undefined : new KeepAlive(waitUntil, runner);
  }

  /** Takes a task that the runner has admitted. */
  add(task: AddedTask): void {
    if (this.#behindOthers === undefined && this.#runner.hasWaiting && hasSlot(this.#state)) this.#behindOthers = task;
    this.#tasks.push(task);
    this.unfinished++;
    this.#runner.added(this);
    if (this.#state.is === 'ended') this.#start();
    void this.keepAlive?.begin((error) => {
      this.#runner.reports.log(this, error, task.info(0), 'waitUntil failed; the tasks run all the same');
    });
  }

  responseOver(outcome: ResponseOutcome): void {
    this.#outcome = outcome;
    this.#start();
  }

  /** Called when the list has a slot. */
  begin(): void {
    this.#state = ready;
  }

  /** Runs tasks until one has to be awaited, the time slice is over, or none is left. */
  advance(): void {
    do this.#step();
    while (this.#canStep && !this.#runner.isSliceOver());
    if (this.#canStep) this.#runner.queue(this);
  }

  /** Called when an awaited attempt has ended. Within the time slice the list goes on at once. */
  resume(run: Run): void {
    this.#attemptOver(run);
    if (!this.#canStep) return;
    if (this.#runner.isSliceOver()) this.#runner.queue(this);
    else this.advance();
  }

  /** For a task that has not ended. A running attempt finishes with its signal aborted. A backoff ends at once. */
  cancel(task: AddedTask): void {
    const state = this.#state;
    const run = runOf(state);
    if (run?.task === task) {
      if (state.is === 'backing off') this.#retry(run, state.timer);
      run.cancel();
    } else {
      this.#settle(task, 'cancelled');
    }
  }

  /** Of its tasks that have not ended, the running one first. */
  snapshots(now: number): Iterable<TaskSnapshot> {
    return snapshotsOf(runOf(this.#state), this.#tasks, this.req, now);
  }

  isRunning(attempt: Attempt): boolean {
    return this.#state.is === 'running' && this.#state.attempt === attempt;
  }

  /** Gives up the tasks of the list, one at each step. */
  *abandon(reason: string, isSpared: (attempt: Attempt) => boolean): Generator<TaskInfo | undefined, void, void> {
    for (; this.#state.is === 'stopping'; yield) this.#step();
    if (this.#state.is === 'backing off') this.#retry(this.#state.run, this.#state.timer);
    const run = runOf(this.#state);
    if (run !== undefined && !isSpared(run.attempt)) {
      const info = this.#abandonRun(run, reason);
      if (this.#state === run) this.#runner.queue(this); // No attempt will resume the list.
      this.#state = ready;
      yield info;
    }
    for (let task = this.#tasks.shift(); task !== undefined; task = this.#tasks.shift()) {
      yield task.status === 'pending' ? this.#abandon(task, 0, abandonedError(task, reason)) : undefined;
    }
  }

  get #canStep(): boolean {
    const { is } = this.#state;
    return is === 'ready' || is === 'retrying' || is === 'stopping';
  }

  #start(): void {
    this.#state = queued;
    this.#runner.enter(this);
  }

  #step(): void {
    const state = this.#state;
    if (state.is === 'stopping') this.#skip(this.#tasks.shift(), state.failure);
    else if (state.is === 'retrying') this.#tryAgain(state.run);
    else if (this.#isTurnOver()) this.#giveWay();
    else this.#takeTask(this.#tasks.shift());
  }

  #isTurnOver(): boolean {
    if (this.#behindOthers === undefined || this.#tasks.first !== this.#behindOthers) return false;
    this.#behindOthers = undefined;
    return this.#runner.hasWaiting;
  }

  #giveWay(): void {
    this.#state = queued;
    this.#runner.giveWay(this);
  }

  #takeTask(task: AddedTask | undefined): void {
    if (task === undefined) this.#end();
    else if (task.status === 'pending') this.#begin(task); // Otherwise it was cancelled.
  }

  #begin(task: AddedTask): void {
    const settings = settingsOf(task, this.#runner.settings);
    const answer = settings.when === undefined ? wanted : this.#ask(task, settings.when);
    if (task.status !== 'pending') return; // "when" has cancelled the task.
    if ('error' in answer) {
      this.#fail(task, 0, answer.error);
    } else if (answer.isWanted) {
      this.#runner.began();
      this.#attempt(new Run(this, task, settings));
    } else {
      this.#settle(task, 'skipped');
    }
  }

  /** The `when` of the middleware is asked once per response, that of a task once per task. */
  #ask(task: AddedTask, when: NonNullable<Condition>): Answer {
    if (when !== this.#runner.settings.when) return ask(when, this.#outcome, task.call, this.scope);
    this.#answer ??= ask(when, this.#outcome, task.call, this.scope);
    return this.#answer;
  }

  #attempt(run: Run): void {
    this.#state = run;
    if (run.start()) this.#attemptOver(run);
  }

  #attemptOver(run: Run): void {
    const { task, attempt } = run;
    const result = attempt.takeResult();
    const next = run.decide(result);
    if (typeof next === 'object') {
      run.failure = { cause: result };
      this.#backOff(run, retryDelay(attempt.attempt, next));
      return;
    }
    this.#state = ready;
    if (next === 'failed') this.#fail(task, attempt.attempt, result);
    else this.#settle(task, next, next === 'succeeded' ? result : undefined);
  }

  #backOff(run: Run, delay: number): void {
    const timer = setTimeout(() => this.#retry(run, timer), delay);
    this.#state = { is: 'backing off', run, timer };
  }

  #retry(run: Run, timer: NodeJS.Timeout): void {
    clearTimeout(timer);
    this.#state = { is: 'retrying', run };
    this.#runner.queue(this);
  }

  #tryAgain(run: Run): void {
    if (run.isCancelled) {
      this.#state = ready;
      this.#settle(run.task, 'cancelled');
    } else {
      run.next();
      this.#attempt(run);
    }
  }

  #fail(task: AddedTask, attempts: number, error: unknown): void {
    const { settings, reports } = this.#runner;
    const failure = { call: this.#settle(task, 'failed', error), task: task.info(attempts), error };
    if (settings.stopOnError && !this.#tasks.isEmpty) {
      this.#state = { is: 'stopping', failure };
      reports.begin(this);
    } else {
      reports.report(this, failure);
    }
  }

  /** Reports the failure with the last skipped task: whoever knows how all tasks ended can rely on the report. */
  #skip(task: AddedTask | undefined, failure: Failure): void {
    if (task?.status === 'pending') this.#settle(task, 'skipped');
    if (!this.#tasks.isEmpty) return;
    this.#state = ready;
    this.#runner.reports.report(this, failure);
    this.#runner.reports.end(this);
  }

  #abandonRun({ task, attempt, failure }: Run, reason: string): TaskInfo {
    const error = abandonedError(task, reason, failure);
    attempt.drop(error);
    return this.#abandon(task, attempt.attempt, error);
  }

  #abandon(task: AddedTask, attempts: number, error: BackgroundTasksError): TaskInfo {
    const call = this.#settle(task, 'abandoned', error);
    const info = task.info(attempts);
    this.#runner.reports.report(this, { call, task: info, error });
    return info;
  }

  /** Every task ends here. Returns its call, in whose context a failure is reported. */
  #settle(task: AddedTask, status: TaskOutcome['status'], result?: unknown): Call {
    const was = task.status === 'running' ? 'running' : 'pending';
    this.unfinished--;
    const call = task.settle(status, result);
    this.#runner.ended(was, status);
    void this.keepAlive?.release();
    return call;
  }

  #end(): void {
    this.#state = ended;
    this.#runner.leave(this);
  }
}

function settingsOf({ definition }: AddedTask, settings: TaskSettings): TaskSettings {
  return definition === undefined ? settings : readTaskOptions(definition.options, settings, definition.isElsewhere);
}

function hasSlot({ is }: State): boolean {
  return is !== 'open' && is !== 'queued' && is !== 'ended';
}

function runOf(state: State): Run | undefined {
  switch (state.is) {
    case 'running':
      return state;
    case 'backing off':
    case 'retrying':
      return state.run;
    default:
      return undefined;
  }
}

function abandonedError(task: AddedTask, reason: string, options?: ErrorOptions): BackgroundTasksError {
  return new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${task.name}" was abandoned: ${reason}`, options);
}
