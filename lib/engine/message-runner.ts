// Runs a worker's tasks as the runner runs those of a response: context, signal, time limit, tracing, reports. When to
// take a message, and what becomes of a failed one, is the engine's part.

import { clearTimeout, setTimeout } from '../clock.js';
import { BackgroundTasksError } from '../errors.js';
import { checkOptions, isFunction, isLimit } from '../options.js';
import { Attempt, type Attemptable, type AttemptOwner } from '../task/attempt.js';
import { isLogger, Reporter } from '../task/report.js';
import { scope } from '../task/scope.js';
import { definitionOf, type Task } from '../task/task.js';
import type { AttemptTrace, TaskTrace } from '../task/tracing.js';
import type { AnyFunction, TaskInfo } from '../task/types.js';
import type { WorkerOptions } from './engine.js';
import { serializeError } from './serialize.js';

/** A message as a worker gets it back. */
export interface StoredMessage {
  readonly id: string;
  readonly name: string;
  readonly args: readonly unknown[];
  readonly timeout?: number | undefined;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
}

/** `dropped`: given up by {@link MessageRunner.drop}; to be run again elsewhere. */
export type AttemptOutcome =
  | { readonly state: 'succeeded'; readonly result: unknown }
  | { readonly state: 'failed'; readonly error: unknown }
  | { readonly state: 'dropped' };

export class MessageRunner implements AttemptOwner {
  readonly concurrency: number;
  readonly #tasks: ReadonlyMap<string, AnyFunction>;
  readonly #reporter: Reporter;
  readonly #running = new Map<Attempt, (outcome: AttemptOutcome) => void>();
  readonly #reports = new Set<Promise<void>>();
  /** What was last said of a store that is out of reach. */
  #outage: string | undefined = undefined;
  /** The ids of those that were reported. */
  readonly #unknown = new Set<string>();
  #onEmpty: (() => void) | undefined = undefined;

  /** @throws BackgroundTasksError `ERR_INVALID_TASK` for what `task(name, handler)` did not make, `ERR_INVALID_OPTION`. */
  constructor(tasks: readonly Task[], options: WorkerOptions = {}) {
    const { concurrency, reporter } = readWorkerOptions(options);
    this.concurrency = concurrency;
    this.#reporter = reporter;
    this.#tasks = new Map(
      tasks.map((task) => {
        const name = typeof task === 'function' ? definitionOf(task)?.name : undefined;
        if (name === undefined) {
          throw new BackgroundTasksError('ERR_INVALID_TASK', 'work(): the tasks must be made by task(name, handler)');
        }
        return [name, task];
      }),
    );
  }

  /** The names of the tasks that this worker knows. */
  get names(): string[] {
    return [...this.#tasks.keys()];
  }

  get running(): number {
    return this.#running.size;
  }

  knows(name: string): boolean {
    return this.#tasks.has(name);
  }

  /** Runs one attempt. Never rejects. A message of an unknown task fails with `ERR_UNKNOWN_TASK`. */
  run(message: StoredMessage): Promise<AttemptOutcome> {
    const handler = this.#tasks.get(message.name);
    if (handler === undefined) return Promise.resolve({ state: 'failed', error: unknownTask(message.name) });
    return new Promise((resolve) => {
      const { id, name } = message;
      const attempt = new Attempt({ id, name }, message.attempt);
      this.#running.set(attempt, resolve);
      const timeout = message.timeout ?? definitionOf(handler)?.options.timeout ?? Number.POSITIVE_INFINITY;
      if (attempt.run(new ReceivedTask(message, handler), timeout, this)) this.attemptOver(attempt);
    });
  }

  /** For a task that this worker does not know: reported once, however often the worker meets it. */
  reportUnknown(info: TaskInfo): void {
    if (this.#unknown.has(info.id)) return;
    if (this.#unknown.size === mostUnknown) this.#unknown.clear();
    this.#unknown.add(info.id);
    this.report(info, unknownTask(info.name));
  }

  /** For a task that failed for good, or that no worker knows. */
  report({ id, name, attempt }: TaskInfo, error: unknown): void {
    this.#track(this.#reporter.report(error, { task: { id, name, attempt } }));
  }

  /** A worker goes on by itself when its store is back, but not in silence: the logger is told, once for each reason. */
  storeFailed(error: unknown): void {
    const outage = serializeError(error).message;
    if (outage === this.#outage) return;
    this.#outage = outage;
    this.#track(
      this.#reporter.log(error, undefined, 'A worker of background tasks cannot reach its store, and tries again'),
    );
  }

  storeAnswered(): void {
    this.#outage = undefined;
  }

  #track(pending: Promise<void> | undefined): void {
    if (pending === undefined) return;
    this.#reports.add(pending);
    void pending.then(() => this.#reports.delete(pending));
  }

  /** Waits until all reports have been taken. Not for ever: an `onError` that never settles must not hold up the shutdown. */
  async reported(): Promise<void> {
    if (this.#reports.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, reportPatience);
    });
    await Promise.race([Promise.all(this.#reports), late]);
    clearTimeout(timer);
  }

  /** Waits until nothing runs. At the timeout, in ms, the signals are aborted and what still runs is given up. */
  async drain(timeout: number): Promise<void> {
    if (this.#running.size === 0) return;
    let timer: NodeJS.Timeout | undefined;
    await new Promise<void>((resolve) => {
      this.#onEmpty = resolve;
      if (timeout === Number.POSITIVE_INFINITY) return;
      timer = setTimeout(() => this.#dropAll(timeout), timeout);
    });
    clearTimeout(timer);
  }

  attemptOver(attempt: Attempt): void {
    const { state } = attempt;
    const result = attempt.takeResult();
    this.#settle(attempt, state === 'succeeded' ? { state, result } : { state: 'failed', error: result });
  }

  #dropAll(timeout: number): void {
    const reason = `the worker's close() reached its timeout of ${timeout} ms`;
    for (const attempt of this.#running.keys()) {
      attempt.drop(new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${attempt.name}" was given back: ${reason}`));
      this.#settle(attempt, { state: 'dropped' });
    }
  }

  #settle(attempt: Attempt, outcome: AttemptOutcome): void {
    const resolve = this.#running.get(attempt);
    this.#running.delete(attempt);
    resolve?.(outcome);
    if (this.#running.size === 0) this.#onEmpty?.();
  }
}

const mostUnknown = 10_000;

/** How long close() waits for reports that `onError` or the logger still works on, in ms. */
const reportPatience = 4500;

export function unknownTask(name: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_UNKNOWN_TASK', `no worker here knows the task "${name}": pass it to work()`);
}

/** After this many workers that died while they ran it, a task has failed: it may be what kills them. */
export const maxLost = 5;

export function abandonedTask(name: string): BackgroundTasksError {
  const reason = `its worker died while it ran, ${maxLost} times`;
  return new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${name}" was given up: ${reason}`);
}

function readWorkerOptions(options: WorkerOptions): { concurrency: number; reporter: Reporter } {
  checkOptions('work()', options, { concurrency: isLimit, logger: isLogger, onError: isFunction });
  return { concurrency: options.concurrency ?? 10, reporter: new Reporter(options.logger, options.onError) };
}

class ReceivedTask implements Attemptable {
  readonly #args: readonly unknown[];
  readonly #handler: AnyFunction;

  constructor({ args }: StoredMessage, handler: AnyFunction) {
    this.#args = args;
    this.#handler = handler;
  }

  call(attempt: Attempt, trace: AttemptTrace | undefined): unknown {
    return trace === undefined
      ? scope.run(attempt, Reflect.apply, this.#handler, undefined, this.#args)
      : scope.run(attempt, trace.call.bind(trace), this.#handler, this.#args);
  }

  trace(info: TaskInfo): TaskTrace {
    return { task: info, args: this.#args };
  }
}
