// Runs a worker's tasks as the runner runs those of a response: context, signal, time limit, tracing. When to take a message,
// and what becomes of a failed one, is the driver's part.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { checkOptions, isFunction, isLimit } from '../options.js';
import { Attempt, type Attemptable, type AttemptOwner, type Surroundings } from '../task/attempt.js';
import { Call } from '../task/call.js';
import { isLogger, Reporter } from '../task/report.js';
import type { TaskEnqueuer } from '../task/scope.js';
import { definitionOf, type Task } from '../task/task.js';
import type { TaskTrace } from '../task/tracing.js';
import type { TaskInfo } from '../task/types.js';
import type { WorkerOptions } from './engine.js';
import { type Colleague, type Start, type Starts, WorkerGroup } from './worker-group.js';
import { unknownTaskError, WorkerReports } from './worker-reports.js';

/** A message as a worker gets it back. */
export interface StoredMessage {
  readonly id: string;
  readonly name: string;
  readonly args: readonly unknown[];
  readonly timeout?: number | undefined;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
}

/**
 * `dropped`: given up at the timeout of `close()`, to be run again elsewhere. `unused`: not begun, since the worker closes; to
 * be given back as if it had not been taken.
 */
export type AttemptOutcome =
  | { readonly state: 'succeeded'; readonly result: unknown }
  | { readonly state: 'failed'; readonly error: unknown }
  | { readonly state: 'dropped' | 'unused' };

export class MessageRunner extends WorkerReports {
  readonly concurrency: number;
  readonly #tasks: ReadonlyMap<string, Task>;
  readonly #group: WorkerGroup<Colleague>;
  readonly #surroundings: Surroundings;
  /** Tasks and reports see the AsyncLocalStorage stores of the work() call, not those of whoever enqueues or closes. */
  readonly #context = new AsyncResource('BackgroundTaskWorker');
  readonly #open = new Set<Run>();
  readonly #dropTimers = new Set<NodeJS.Timeout>();
  #isDraining = false;
  #onDrained: (() => void)[] = [];

  /**
   * @throws BackgroundTasksError `ERR_INVALID_TASK` for what `task(name, handler)` did not make and for two tasks of one name,
   * `ERR_INVALID_OPTION`.
   */
  constructor(
    tasks: readonly Task[],
    options: WorkerOptions = {},
    group: WorkerGroup<Colleague> = new WorkerGroup(),
    enqueuer?: TaskEnqueuer | undefined,
  ) {
    checkOptions('work()', options, { concurrency: isLimit, logger: isLogger, onError: isFunction });
    super(new Reporter(options.logger, options.onError));
    this.concurrency = options.concurrency ?? 10;
    this.#tasks = byName(tasks);
    this.#group = group;
    this.#surroundings = { response: undefined, enqueuer };
  }

  /** The names of the tasks that this worker knows. */
  get names(): string[] {
    return [...this.#tasks.keys()];
  }

  /** How many attempts run or are about to begin. */
  get running(): number {
    return this.#open.size;
  }

  /** How many more tasks may be taken now. */
  get free(): number {
    return this.#isDraining || this.isBlocked ? 0 : this.concurrency - this.#open.size;
  }

  /** True while a task runs alone or waits for that: then no other is to be taken. */
  get isBlocked(): boolean {
    return this.#group.starts.isBlocked;
  }

  knows(name: string): boolean {
    return this.#tasks.has(name);
  }

  /** Whether any worker of this engine in this process knows a task by this name: then it is not unknown. */
  isKnownHere(name: string): boolean {
    if (this.knows(name)) return true;
    for (const worker of this.#group) if (worker.knows(name)) return true;
    return false;
  }

  /** To be called when a task can be taken that was not to be had before: it was put back, or a suspect has ended. */
  wakeAll(): void {
    for (const worker of this.#group) worker.wake();
  }

  /**
   * Runs one attempt. Never rejects. A message of an unknown task fails with `ERR_UNKNOWN_TASK`. Given `beginAlone`, the attempt
   * waits until nothing else runs on this engine in this process; `beginAlone` is called then, to store durably that it begins
   * alone, and resolves with false where the task is not this worker's any more.
   */
  run(message: StoredMessage, beginAlone?: () => Promise<boolean>): Promise<AttemptOutcome> {
    const task = this.#tasks.get(message.name);
    if (task === undefined) return Promise.resolve({ state: 'failed', error: unknownTaskError(message.name) });
    if (this.#isDraining) return Promise.resolve({ state: 'unused' });
    return new Promise((resolve) => {
      const call = this.#context.runInAsyncScope(() => new Call(task, message.args));
      const timeout = message.timeout ?? definitionOf(task)?.options.timeout ?? Number.POSITIVE_INFINITY;
      const received = new ReceivedTask(message, call);
      const run = new Run(received, this.#surroundings, timeout, beginAlone, this.#group.starts, (outcome) => {
        this.#open.delete(run);
        resolve(outcome);
        this.#checkDrained();
      });
      this.#open.add(run);
      this.#group.starts.add(run);
    });
  }

  /** From here on no attempt begins. After so many ms the signals are aborted, and what still runs is given up. */
  dropAfter(timeout: number): void {
    this.#isDraining = true;
    for (const run of this.#open) run.dropUnbegun();
    if (timeout === Number.POSITIVE_INFINITY || this.#open.size === 0) return;
    const timer = setTimeout(() => {
      this.#dropTimers.delete(timer);
      const reason = `the worker's close() reached its timeout of ${timeout} ms`;
      for (const run of this.#open) run.drop(reason);
    }, timeout);
    this.#dropTimers.add(timer);
  }

  /** Resolves when nothing runs. */
  drained(): Promise<void> {
    this.#isDraining = true;
    for (const run of this.#open) run.dropUnbegun();
    return new Promise((resolve) => {
      this.#onDrained.push(resolve);
      this.#checkDrained();
    });
  }

  protected override inContext<T>(fn: () => T): T {
    return this.#context.runInAsyncScope(fn);
  }

  #checkDrained(): void {
    if (this.#open.size > 0) return;
    for (const timer of this.#dropTimers) clearTimeout(timer);
    this.#dropTimers.clear();
    const listeners = this.#onDrained;
    this.#onDrained = [];
    for (const listener of listeners) listener();
  }
}

/** One attempt on its way: it waits for its turn, runs, and ends once. */
class Run implements Start, AttemptOwner {
  readonly #task: ReceivedTask;
  readonly #attempt: Attempt;
  readonly #timeout: number;
  readonly #beginAlone: (() => Promise<boolean>) | undefined;
  readonly #starts: Starts;
  readonly #onEnd: (outcome: AttemptOutcome) => void;
  #state: 'waiting' | 'begun' | 'over' = 'waiting';

  constructor(
    task: ReceivedTask,
    surroundings: Surroundings,
    timeout: number,
    beginAlone: (() => Promise<boolean>) | undefined,
    starts: Starts,
    onEnd: (outcome: AttemptOutcome) => void,
  ) {
    this.#task = task;
    this.#attempt = new Attempt({ id: task.id, name: task.name }, task.attempt, surroundings);
    this.#timeout = timeout;
    this.#beginAlone = beginAlone;
    this.#starts = starts;
    this.#onEnd = onEnd;
  }

  get isAlone(): boolean {
    return this.#beginAlone !== undefined;
  }

  begin(): void {
    if (this.#state === 'over') {
      this.#starts.ended(this); // It was dropped while it waited.
      return;
    }
    this.#state = 'begun';
    if (this.#beginAlone === undefined) this.#run();
    else void this.#runAlone(this.#beginAlone);
  }

  /** Ends what has not begun. */
  dropUnbegun(): void {
    if (this.#state !== 'waiting') return;
    this.#state = 'over';
    this.#onEnd({ state: 'unused' });
  }

  drop(reason: string): void {
    if (this.#state !== 'begun') return;
    const { name } = this.#attempt;
    this.#attempt.drop(new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${name}" was given back: ${reason}`));
    this.#end({ state: 'dropped' });
  }

  attemptOver(attempt: Attempt): void {
    const { state } = attempt;
    const result = attempt.takeResult();
    this.#end(state === 'succeeded' ? { state, result } : { state: 'failed', error: result });
  }

  #run(): void {
    if (this.#attempt.run(this.#task, this.#timeout, this)) this.attemptOver(this.#attempt);
  }

  async #runAlone(beginAlone: () => Promise<boolean>): Promise<void> {
    const isOurs = await beginAlone().catch(() => false);
    if (this.#state === 'over') return;
    if (isOurs) this.#run();
    else this.#end({ state: 'unused' });
  }

  #end(outcome: AttemptOutcome): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#starts.ended(this);
    this.#onEnd(outcome);
  }
}

function byName(tasks: readonly Task[]): Map<string, Task> {
  const known = new Map<string, Task>();
  for (const task of tasks) {
    const name = typeof task === 'function' ? definitionOf(task)?.name : undefined;
    if (name === undefined) {
      throw new BackgroundTasksError('ERR_INVALID_TASK', 'work(): the tasks must be made by task(name, handler)');
    }
    if (known.has(name)) throw new BackgroundTasksError('ERR_INVALID_TASK', `work(): two tasks are named "${name}"`);
    known.set(name, task);
  }
  return known;
}

class ReceivedTask implements Attemptable {
  readonly id: string;
  readonly name: string;
  readonly attempt: number;
  /** With the stores of the work() call: one that a task enters with enterWith() is not for the next task. */
  readonly call: Call;

  constructor({ id, name, attempt }: StoredMessage, call: Call) {
    this.id = id;
    this.name = name;
    this.attempt = attempt;
    this.call = call;
  }

  trace(info: TaskInfo): TaskTrace {
    return { task: info, args: this.call.args };
  }
}
