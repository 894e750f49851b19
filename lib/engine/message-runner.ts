// Runs a worker's tasks as the runner runs those of a response: context, signal, time limit, tracing. When to take a message,
// and what is stored of its end, is the driver's part.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { checkOptions, isFunction, isLimit } from '../options.js';
import type { Surroundings } from '../task/attempt.js';
import { isLogger, Reporter } from '../task/report.js';
import type { TaskEnqueuer } from '../task/scope.js';
import { definitionOf, type Task } from '../task/task.js';
import { Cancellation } from './cancellation.js';
import type { WorkerHealth, WorkerOptions } from './engine.js';
import { Health } from './health.js';
import { type Progress, ProgressWriter } from './progress.js';
import { type AttemptOutcome, Run, type RunOwner, type StoredMessage } from './run.js';
import { type Colleague, type Starts, WorkerGroup } from './worker-group.js';
import { unknownTaskError, WorkerReports } from './worker-reports.js';

/** What a runner uses of a driver. */
export interface RunStore {
  /** For the tracing channel. */
  readonly name?: string;
  /** Which of these tasks, which run here, are marked by `cancel`. */
  readonly findCancelled?: ((ids: readonly string[]) => Promise<readonly string[]>) | undefined;
  /** Keeps what running tasks have reported. */
  readonly setProgress?: ((progress: readonly Progress[]) => Promise<void>) | undefined;
}

/**
 * Runs the attempts of one worker. Passed to a driver's `work`.
 *
 * @hideconstructor
 */
export class MessageRunner extends WorkerReports implements RunOwner {
  readonly concurrency: number;
  readonly surroundings: Surroundings;
  readonly engine: string;
  readonly #tasks: ReadonlyMap<string, Task>;
  readonly #group: WorkerGroup<Colleague>;
  /** Tasks and reports see the AsyncLocalStorage stores of the work() call, not those of whoever enqueues or closes. */
  readonly #context = new AsyncResource('BackgroundTaskWorker');
  readonly #health = new Health();
  readonly #cancellation: Cancellation | undefined;
  readonly #progress: ProgressWriter | undefined;
  /** Each with what resolves its `run()`. */
  readonly #open = new Map<Run, (outcome: AttemptOutcome) => void>();
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
    { name = 'unknown', findCancelled, setProgress }: RunStore = {},
  ) {
    checkOptions('work()', options, { concurrency: isLimit, logger: isLogger, onError: isFunction });
    super(new Reporter(options.logger, options.onError));
    this.concurrency = options.concurrency ?? 10;
    this.#tasks = byName(tasks);
    this.#group = group;
    this.surroundings = { response: undefined, enqueuer };
    this.engine = name;
    this.#cancellation = findCancelled && new Cancellation(() => this.#open.keys(), findCancelled);
    this.#progress = setProgress && new ProgressWriter(setProgress);
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

  get starts(): Starts {
    return this.#group.starts;
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
    const { options, isElsewhere = false } = definitionOf(task) ?? {};
    const timeout = message.timeout ?? options?.timeout ?? 0;
    const limits = { timeout: timeout === 0 ? Number.POSITIVE_INFINITY : timeout, isElsewhere };
    const run = this.#context.runInAsyncScope(() => new Run(message, task, limits, this, beginAlone));
    return new Promise((resolve) => {
      this.#open.set(run, resolve);
      this.#cancellation?.begin();
      this.starts.add(run);
    });
  }

  progressed({ id, attempt }: Run, json: string): void {
    this.#progress?.add({ id, attempt, json });
  }

  ended(run: Run, outcome: AttemptOutcome): void {
    const resolve = this.#open.get(run);
    this.#open.delete(run);
    if (this.#open.size === 0) this.#cancellation?.stop();
    const written = this.#progress?.written(run.id);
    if (written === undefined) resolve?.(outcome);
    else void written.then(() => resolve?.(outcome));
    this.#checkDrained();
  }

  /** Aborts those of its tasks that were cancelled. Looks by itself every 2 s. */
  async cancelMarked(): Promise<void> {
    if (this.#open.size > 0) await this.#cancellation?.look();
  }

  /** To be called whenever the store has answered: at least every few seconds, also while no task can be taken. */
  polled(): void {
    this.#health.polled();
  }

  override storeFailed(error: unknown): void {
    this.#health.failed(error);
    super.storeFailed(error);
  }

  health(): WorkerHealth {
    return this.#health.report(this.#open.size, this.#isDraining);
  }

  /** From here on no attempt begins. After so many ms the signals are aborted, and what still runs is given up. */
  dropAfter(timeout: number): void {
    this.#isDraining = true;
    for (const run of this.#open.keys()) run.dropUnbegun();
    if (timeout === Number.POSITIVE_INFINITY || this.#open.size === 0) return;
    const timer = setTimeout(() => {
      this.#dropTimers.delete(timer);
      const reason = `the worker's close() reached its timeout of ${timeout} ms`;
      for (const run of this.#open.keys()) run.drop(reason);
    }, timeout);
    this.#dropTimers.add(timer);
  }

  /** Resolves when nothing runs. */
  drained(): Promise<void> {
    this.#isDraining = true;
    for (const run of this.#open.keys()) run.dropUnbegun();
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

function byName(tasks: readonly Task[]): Map<string, Task> {
  if (!Array.isArray(tasks)) {
    throw new BackgroundTasksError(
      'ERR_INVALID_TASK',
      `work(): the tasks must be an array, not ${inspectShort(tasks)}`,
    );
  }
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
