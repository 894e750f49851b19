// One attempt of a stored task on its way through a worker: it waits for its turn, runs, and ends once.

import { BackgroundTasksError, isNonRetryable } from '../errors.js';
import { Attempt, type Attemptable, type AttemptOwner, type Surroundings } from '../task/attempt.js';
import { Call } from '../task/call.js';
import type { AttemptLimits } from '../task/options.js';
import { type Backoff, retryDelay } from '../task/retry.js';
import type { TaskTrace } from '../task/tracing.js';
import type { AnyFunction, TaskInfo } from '../task/types.js';
import { type Headers, noHeaders } from './headers.js';
import type { Start, Starts } from './worker-group.js';

/** A message as a worker gets it back. */
export interface StoredMessage {
  readonly id: string;
  readonly name: string;
  readonly args: readonly unknown[];
  /** That of the message. */
  readonly timeout?: number | undefined;
  /** Which attempt this is, from 1. */
  readonly attempt: number;
  /** The `retries` of the message. */
  readonly retries?: Backoff | undefined;
  /** How many attempts have failed since the task was enqueued, or queued anew by `retry()`. Default 0. */
  readonly failures?: number | undefined;
  /** Those of the message. */
  readonly headers?: Headers | undefined;
}

/**
 * `failed`: with `retryIn`, another attempt is to follow after so many ms. `cancelled`: its signal was aborted by `cancel()`,
 * and it rejected. `dropped`: given up at the timeout of `close()`, to be run again elsewhere. `unused`: not begun, since the
 * worker closes; to be given back as if it had not been taken.
 */
export type AttemptOutcome =
  | { readonly state: 'succeeded'; readonly result: unknown }
  | { readonly state: 'failed'; readonly error: unknown; readonly retryIn?: number }
  | { readonly state: 'cancelled' | 'dropped' | 'unused' };

/** The worker that an attempt runs in. */
export interface RunOwner {
  readonly surroundings: Surroundings;
  /** The name of the engine. */
  readonly engine: string;
  readonly starts: Starts;
  progressed(run: Run, json: string): void;
  ended(run: Run, outcome: AttemptOutcome): void;
}

export class Run implements Start, AttemptOwner {
  readonly id: string;
  readonly attempt: number;
  readonly #message: StoredMessage;
  readonly #task: ReceivedTask;
  readonly #attempt: Attempt;
  readonly #limits: AttemptLimits;
  readonly #owner: RunOwner;
  readonly #beginAlone: (() => Promise<boolean>) | undefined;
  #state: 'waiting' | 'begun' | 'over' = 'waiting';

  /** In the context that the task is to run in. */
  constructor(
    message: StoredMessage,
    handler: AnyFunction,
    limits: AttemptLimits,
    owner: RunOwner,
    beginAlone: (() => Promise<boolean>) | undefined,
  ) {
    const { id, name, attempt } = message;
    this.id = id;
    this.attempt = attempt;
    this.#message = message;
    this.#task = new ReceivedTask(handler, message, owner.engine);
    this.#attempt = new Attempt({ id, name }, attempt, owner.surroundings);
    this.#limits = limits;
    this.#owner = owner;
    this.#beginAlone = beginAlone;
  }

  get isAlone(): boolean {
    return this.#beginAlone !== undefined;
  }

  begin(): void {
    if (this.#state === 'over') {
      this.#owner.starts.ended(this); // It was dropped while it waited.
      return;
    }
    this.#state = 'begun';
    if (this.#beginAlone === undefined) this.#run();
    else void this.#runAlone(this.#beginAlone);
  }

  /** Ends what has not begun. */
  dropUnbegun(): void {
    if (this.#state === 'waiting') this.#endUnbegun({ state: 'unused' });
  }

  drop(reason: string): void {
    if (this.#state !== 'begun') return;
    const { name } = this.#attempt;
    this.#attempt.drop(new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${name}" was given back: ${reason}`));
    this.#end({ state: 'dropped' });
  }

  /** Aborts its signal. What has not begun does not begin. */
  cancel(): void {
    if (this.#attempt.isCancelled || this.#state === 'over') return;
    if (this.#state === 'waiting') this.#endUnbegun({ state: 'cancelled' });
    else this.#attempt.cancel();
  }

  attemptOver(attempt: Attempt): void {
    const { state } = attempt;
    const result = attempt.takeResult();
    if (state === 'succeeded') this.#end({ state, result });
    else this.#end(this.#attempt.isCancelled ? { state: 'cancelled' } : failed(this.#message, result));
  }

  progressed(json: string): void {
    if (this.#state === 'begun') this.#owner.progressed(this, json);
  }

  #run(): void {
    if (this.#attempt.run(this.#task, this.#limits, this)) this.attemptOver(this.#attempt);
  }

  async #runAlone(beginAlone: () => Promise<boolean>): Promise<void> {
    const isOurs = await beginAlone().catch(() => false);
    if (this.#state === 'over') return;
    if (isOurs) this.#run();
    else this.#end({ state: 'unused' });
  }

  #endUnbegun(outcome: AttemptOutcome): void {
    this.#state = 'over';
    this.#owner.ended(this, outcome);
  }

  #end(outcome: AttemptOutcome): void {
    if (this.#state === 'over') return;
    this.#state = 'over';
    this.#owner.starts.ended(this);
    this.#owner.ended(this, outcome);
  }
}

/** What an attempt that failed with this leads to. */
function failed({ retries, failures = 0 }: StoredMessage, error: unknown): AttemptOutcome {
  return retries === undefined || failures >= retries.limit || isNonRetryable(error)
    ? { state: 'failed', error }
    : { state: 'failed', error, retryIn: retryDelay(failures + 1, retries) };
}

class ReceivedTask implements Attemptable {
  /** With the stores of the work() call: one that a task enters with enterWith() is not for the next task. */
  readonly call: Call;

  readonly #headers: Headers;
  readonly #engine: string;

  constructor(handler: AnyFunction, { args, headers = noHeaders }: StoredMessage, engine: string) {
    this.call = new Call(handler, args);
    this.#headers = headers;
    this.#engine = engine;
  }

  trace(info: TaskInfo): TaskTrace {
    const message = { id: info.id, headers: this.#headers };
    return { task: info, args: this.call.args, engine: this.#engine, message };
  }
}
