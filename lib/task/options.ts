// The options of a task: their checks, and the settings that they make together with those of the middleware.

import { type Checks, checkOptions, copyOptions, isText, isTimeout } from '../options.js';
import { type Backoff, isRetries, type RetryOptions, readRetries, retryChecks } from './retry.js';
import { type Condition, isWhen, type RunWhen, readWhen } from './when.js';

/** Options of one task. They take precedence over those of the middleware. */
export interface TaskOptions {
  /** Time limit of one attempt, in ms. Infinity for none. Default: as the middleware, or none where there is none. */
  timeout?: number | undefined;
  /** How many times a failed task is tried again, or how. Default: as the middleware, or 0 where there is none. */
  retries?: number | RetryOptions | undefined;
  /**
   * Which responses the task runs after. Default: as the middleware. For `add` only: `enqueue` refuses a task with this option.
   */
  when?: RunWhen | undefined;
  /**
   * How long the task has to wait, in ms, at most a thousand years. Default 0. Like the options below for `enqueue` only: `add`
   * refuses a task with one of them.
   */
  delay?: number | undefined;
  /** A whole number. Of the tasks that may run, those with the highest priority run first. Default 0. */
  priority?: number | undefined;
  /** While a task with this key is queued or runs, `enqueue` resolves with its id and stores nothing. */
  key?: string | undefined;
  /**
   * With a `key`: what `enqueue` does where a task with that key runs. `keep`, the default: it resolves with that one's id.
   * `again`: it stores one more, which runs after it; of several calls meanwhile the last one's arguments count.
   */
  whileRunning?: 'keep' | 'again' | undefined;
}

/** What an attempt needs to know. */
export interface AttemptLimits {
  /** Infinity for none. */
  readonly timeout: number;
  /** Whether the task's function hands the attempt over, to a thread: see task.ts. */
  readonly isElsewhere: boolean;
}

export interface TaskSettings extends AttemptLimits {
  /** Undefined if there is only one attempt. */
  readonly backoff: Backoff | undefined;
  readonly when: Condition;
}

export function checkTaskOptions(options: TaskOptions, of = 'task()'): void {
  checkOptions(of, options, taskOptionChecks);
}

/** Copies the options, since the caller may change them after the check. They are copied by name, since they may be inherited. */
export function copyTaskOptions(options: TaskOptions): TaskOptions {
  const copy: TaskOptions = copyOptions(options, taskOptionChecks);
  if (typeof copy.retries === 'object') copy.retries = copyOptions(copy.retries, retryChecks);
  return copy;
}

/** The task's own options over the settings of the middleware. The options have passed {@link checkTaskOptions}. */
export function readTaskOptions(
  { timeout, retries, when }: TaskOptions,
  defaults = noTaskSettings,
  isElsewhere = false,
): TaskSettings {
  return {
    timeout: timeout ?? defaults.timeout,
    isElsewhere,
    backoff: retries === undefined ? defaults.backoff : readRetries(retries),
    when: when === undefined ? defaults.when : readWhen(when),
  };
}

/** The options that the middleware has too. */
export const attemptChecks = { timeout: isTimeout, retries: isRetries, when: isWhen };

const noTaskSettings: TaskSettings = {
  timeout: Number.POSITIVE_INFINITY,
  isElsewhere: false,
  backoff: undefined,
  when: undefined,
};

/** A time that is not much later would be beyond the last one that a Date can hold. */
const longestWait = 1000 * 365 * 24 * 60 * 60 * 1000;

export const taskOptionChecks: Checks<TaskOptions> = {
  ...attemptChecks,
  delay: (value) =>
    typeof value === 'number' && value >= 0 && value <= longestWait
      ? undefined
      : `milliseconds from 0 to ${longestWait}, which is a thousand years`,
  priority: (value) => (Number.isSafeInteger(value) ? undefined : 'a whole number'),
  key: isText,
  whileRunning: (value) => (value === 'keep' || value === 'again' ? undefined : "'keep' or 'again'"),
};
