// Options in, settings out: defaults filled in, bad and unknown ones refused at the call that passed them.

import { IncomingMessage } from 'node:http';
import { isAwaitable } from './awaitable.js';
import type { TaskEngine, WorkerOptions } from './engines/engine.js';
import { BackgroundTasksError } from './errors.js';
import { type Logger, type OnError, Reporter } from './report.js';
import { isSuccess, type ResponseOutcome, type RunWhen } from './response.js';
import type { Backoff, RetryOptions } from './retry.js';
import { show } from './show.js';
import type { StatusOptions } from './status.js';

export interface BackgroundTasksOptions {
  /** Told of each failed task, unless `onError` is given. Default: `console`, with the task's name and the error's stack. */
  logger?: Logger | undefined;
  /** Called with each failure of a task instead of the logger. */
  onError?: OnError | undefined;
  /** Which responses the tasks run after; other tasks end as `skipped`. Default `'always'`. */
  when?: RunWhen | undefined;
  /** Skips the rest of a response's tasks when one has failed, as Starlette does. Default false. */
  stopOnError?: boolean | undefined;
  /** Time limit of one attempt, in ms. Default none. */
  timeout?: number | undefined;
  /** How many times a failed task is tried again, or how. Default 0. */
  retries?: number | RetryOptions | undefined;
  /** How many responses' tasks run at the same time. Default Infinity. */
  concurrency?: number | undefined;
  /** How many tasks may be added and not yet ended, over all responses. Past it `add` throws. Default Infinity. */
  maxPending?: number | undefined;
  /** Given a promise of the end of a response's tasks, once per response that has any, so that a serverless host stays up. */
  waitUntil?: ((work: Promise<void>) => void) | undefined;
  /** What `enqueue` hands over to. Default none: `enqueue` rejects with `ERR_NO_ENGINE`. */
  engine?: TaskEngine | undefined;
}

/** Options of one task; they stand over those of the middleware. */
export interface TaskOptions {
  /** Time limit of one attempt, in ms. Infinity for none. */
  timeout?: number | undefined;
  /** How many times a failed attempt is followed by another one, or how. */
  retries?: number | RetryOptions | undefined;
  /** Which responses the task runs after. For `add` only: `enqueue` refuses a task that has it. */
  when?: RunWhen | undefined;
  /** ms before the task may run. Like the next two for `enqueue` only: `add` refuses a task that has it. */
  delay?: number | undefined;
  /** A whole number: of tasks that may run, those with a higher one run first. Default 0. */
  priority?: number | undefined;
  /** While a task with this key is queued or runs, `enqueue` resolves with its id and stores nothing. */
  key?: string | undefined;
}

export interface CloseOptions {
  /** How long pending and running tasks may take to end, in ms. Default 10000. */
  timeout?: number | undefined;
}

export interface Settings extends TaskSettings {
  readonly reporter: Reporter;
  readonly stopOnError: boolean;
  readonly concurrency: number;
  readonly maxPending: number;
  readonly waitUntil: ((work: Promise<void>) => void) | undefined;
  readonly engine: TaskEngine | undefined;
}

export interface TaskSettings {
  readonly timeout: number;
  /** Undefined: one attempt only. */
  readonly backoff: Backoff | undefined;
  /** Undefined: always. */
  readonly when: ((outcome: ResponseOutcome) => boolean) | undefined;
}

export function readOptions(options: BackgroundTasksOptions): Settings {
  if ((options as object) instanceof IncomingMessage) {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      'backgroundTasks() makes the middleware: write app.use(backgroundTasks()), not app.use(backgroundTasks)',
    );
  }
  checkOptions('backgroundTasks()', options, optionChecks);
  return {
    ...readTaskOptions(options),
    reporter: new Reporter(options.logger, options.onError),
    stopOnError: options.stopOnError ?? false,
    concurrency: options.concurrency ?? Number.POSITIVE_INFINITY,
    maxPending: options.maxPending ?? Number.POSITIVE_INFINITY,
    waitUntil: options.waitUntil,
    engine: options.engine,
  };
}

export function checkTaskOptions(options: TaskOptions): void {
  checkOptions('task()', options, taskOptionChecks);
}

/** What the caller does with its objects later has not been checked. By name, as they are checked: they may be inherited. */
export function copyTaskOptions(options: TaskOptions): TaskOptions {
  const copy: TaskOptions = copyOf(options, taskOptionChecks);
  if (typeof copy.retries === 'object') copy.retries = copyOf(copy.retries, retryChecks);
  return copy;
}

/** What a task's own options say, over the settings of the middleware. The options have passed {@link checkTaskOptions}. */
export function readTaskOptions({ timeout, retries, when }: TaskOptions, defaults = noTaskSettings): TaskSettings {
  return {
    timeout: timeout ?? defaults.timeout,
    backoff: retries === undefined ? defaults.backoff : readRetries(retries),
    when: when === undefined ? defaults.when : readWhen(when),
  };
}

export function checkStatusOptions(engine: TaskEngine, options: StatusOptions): void {
  if (isEngine(engine) !== undefined) {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      `taskStatus(): the first argument must be an engine, not ${show(engine)}`,
    );
  }
  checkOptions('taskStatus()', options, { result: isBoolean });
}

export function readWorkerOptions(options: WorkerOptions): { concurrency: number; reporter: Reporter } {
  checkOptions('work()', options, { concurrency: isLimit, logger: isLogger, onError: isFunction });
  return { concurrency: options.concurrency ?? 10, reporter: new Reporter(options.logger, options.onError) };
}

export function readCloseTimeout(options: CloseOptions): number {
  checkOptions('close()', options, { timeout: isTimeoutOrZero });
  return options.timeout ?? 10_000;
}

const noTaskSettings: TaskSettings = { timeout: Number.POSITIVE_INFINITY, backoff: undefined, when: undefined };

function readRetries(retries: number | RetryOptions): Backoff | undefined {
  const given: RetryOptions = typeof retries === 'number' ? { limit: retries } : retries;
  const { limit, minDelay = 1000, maxDelay = Math.max(30_000, minDelay), factor = 2, jitter = true } = given;
  return limit === 0 ? undefined : { limit, minDelay, maxDelay, factor, jitter };
}

function readWhen(when: RunWhen): TaskSettings['when'] {
  if (when === 'always') return undefined;
  return when === 'success' ? isSuccess : when;
}

/** Returns what was expected if the value is not it. */
export type Check = (value: unknown) => string | undefined;
export type Checks<Options> = Record<keyof Options, Check>;

/** setTimeout fires at once for a longer delay. */
const longestDelay = 2 ** 31 - 1;

const isFunction: Check = (value) => (typeof value === 'function' ? undefined : 'a function');
const isBoolean: Check = (value) => (typeof value === 'boolean' ? undefined : 'true or false');
const isLimit: Check = (value) =>
  value === Number.POSITIVE_INFINITY || (isInteger(value) && value >= 1)
    ? undefined
    : 'a whole number from 1, or Infinity';
const isTimeout: Check = (value) =>
  value === Number.POSITIVE_INFINITY || (isDelay(value) && value > 0)
    ? undefined
    : `milliseconds, more than 0 and at most ${longestDelay}, or Infinity`;
const isTimeoutOrZero: Check = (value) => (value === 0 ? undefined : isTimeout(value));
const isWhen: Check = (value) =>
  value === 'always' || value === 'success' || typeof value === 'function'
    ? undefined
    : "'always', 'success' or a function";
const isLogger: Check = (value) =>
  isAwaitable(value) && typeof (value as Partial<Logger>).error === 'function'
    ? undefined
    : 'an object with a method error(context, message)';
const isEngine: Check = (value) =>
  isAwaitable(value) &&
  ['enqueue', 'work', 'get', 'close'].every((name) => typeof Reflect.get(value, name) === 'function')
    ? undefined
    : 'an engine, such as sqlite({ path })';
const isRetries: Check = (value) => {
  if (isInteger(value) && value >= 0) return undefined;
  if (typeof value !== 'object' || value === null) return 'a whole number from 0, or { limit, … }';
  checkOptions('retries', value, retryChecks);
  const { limit, minDelay = 0, maxDelay = longestDelay } = value as RetryOptions;
  if (limit === undefined) return 'a whole number from 0, or { limit, … }';
  return minDelay > maxDelay ? 'a minDelay that is not over maxDelay' : undefined;
};

const isRetryDelay: Check = (value) => (isDelay(value) ? undefined : `milliseconds, from 0 to ${longestDelay}`);
const retryChecks: Checks<RetryOptions> = {
  limit: (value) => (isInteger(value) && value >= 0 ? undefined : 'a whole number from 0'),
  minDelay: isRetryDelay,
  maxDelay: isRetryDelay,
  factor: (value) =>
    typeof value === 'number' && value >= 1 && value < Number.POSITIVE_INFINITY ? undefined : 'a number from 1',
  jitter: isBoolean,
};

const attemptChecks = { timeout: isTimeout, retries: isRetries, when: isWhen };

const taskOptionChecks: Checks<TaskOptions> = {
  ...attemptChecks,
  delay: (value) =>
    typeof value === 'number' && value >= 0 && value <= Number.MAX_SAFE_INTEGER ? undefined : 'milliseconds from 0',
  priority: (value) => (Number.isSafeInteger(value) ? undefined : 'a whole number'),
  key: (value) => (typeof value === 'string' && value !== '' ? undefined : 'a string that is not empty'),
};

const optionChecks: Checks<BackgroundTasksOptions> = {
  ...attemptChecks,
  logger: isLogger,
  onError: isFunction,
  stopOnError: isBoolean,
  concurrency: isLimit,
  maxPending: isLimit,
  waitUntil: isFunction,
  engine: isEngine,
};

function isInteger(value: unknown): value is number {
  return Number.isInteger(value);
}

function isDelay(value: unknown): value is number {
  return typeof value === 'number' && value >= 0 && value <= longestDelay;
}

/** The options that are there. One that is there as `undefined` stands for the default, also over another one. */
function copyOf<Options extends object>(options: Options, checks: Checks<Options>): Options {
  const names = Object.keys(checks).filter((name) => name in options);
  return Object.fromEntries(names.map((name) => [name, options[name as keyof Options]])) as Options;
}

/** `undefined` stands for the default, as in a destructuring pattern. */
export function checkOptions<Options extends object>(of: string, options: Options, checks: Checks<Options>): void {
  if (typeof options !== 'object' || options === null || Array.isArray(options)) {
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `${of}: the options must be an object, not ${show(options)}`);
  }
  for (const name of Object.keys(options)) {
    if (Object.hasOwn(checks, name)) continue;
    const known = Object.keys(checks).sort().join(', ');
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `${of}: unknown option "${name}"; there are ${known}`);
  }
  // By name, not by what the object owns: options may be inherited, and are read by name.
  for (const [name, check] of Object.entries<Check>(checks)) {
    const value = options[name as keyof Options];
    const expected = value === undefined ? undefined : check(value);
    if (expected !== undefined) {
      throw new BackgroundTasksError('ERR_INVALID_OPTION', `${of}: "${name}" must be ${expected}, not ${show(value)}`);
    }
  }
}
