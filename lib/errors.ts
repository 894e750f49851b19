// The error classes of this library and the codes. What each code means and what to do is in docs/errors.md.

import { isObject } from './foreign-value.js';

/** The codes of {@link BackgroundTasksError}. Each has a section in docs/errors.md. */
export type ErrorCode =
  | 'ERR_ENGINE_UNAVAILABLE'
  | 'ERR_INVALID_OPTION'
  | 'ERR_INVALID_TASK'
  | 'ERR_NO_ENGINE'
  | 'ERR_NO_RESPONSE_CONTEXT'
  | 'ERR_TASK_ABANDONED'
  | 'ERR_TASK_NOT_SERIALIZABLE'
  | 'ERR_TASK_TIMEOUT'
  | 'ERR_TASKS_CLOSED'
  | 'ERR_TASKS_OVERLOADED'
  | 'ERR_THREAD_DIED'
  | 'ERR_UNKNOWN_TASK';

const statuses: Partial<Record<ErrorCode, number>> = {
  ERR_ENGINE_UNAVAILABLE: 503,
  ERR_TASKS_CLOSED: 503,
  ERR_TASKS_OVERLOADED: 503,
};

/** An error of this library: thrown by a call, or reported for a task (a timeout, an abandoned task). */
export class BackgroundTasksError extends Error {
  /** For programs, and stable. The message is for people, and may change. */
  readonly code: ErrorCode;
  /** The HTTP status that Express answers with, if the code stands for one. */
  declare readonly status?: number;

  constructor(code: ErrorCode, message: string, options?: { cause?: unknown }) {
    super(message, options);
    this.code = code;
    const status = statuses[code];
    if (status !== undefined) this.status = status;
  }

  static {
    BackgroundTasksError.prototype.name = 'BackgroundTasksError';
  }
}

export function hasCode(error: unknown, code: ErrorCode): error is BackgroundTasksError {
  return error instanceof BackgroundTasksError && error.code === code;
}

/** The same in every copy of this package. */
const nonRetryable = Symbol.for('express-background-tasks.non-retryable');

/**
 * Thrown by a task, or as the `cause` of what it throws, it says that another attempt would fail as well: no retry follows.
 *
 * @example
 * if (response.status === 404) throw new NonRetryableError(`there is no user ${id}`);
 */
export class NonRetryableError extends Error {
  static {
    NonRetryableError.prototype.name = 'NonRetryableError';
    Object.defineProperty(NonRetryableError.prototype, nonRetryable, { value: true });
  }
}

/** Whether the error itself says so, whatever its causes say. It may throw. */
export function isMarkedNonRetryable(error: object): boolean {
  return Reflect.get(error, nonRetryable) === true;
}

/** A chain of causes may be a circle. */
const longestChain = 100;

export function isNonRetryable(error: unknown): boolean {
  try {
    let link = error;
    for (let length = 0; length < longestChain && isObject(link); length++) {
      if (isMarkedNonRetryable(link)) return true;
      link = Reflect.get(link, 'cause');
    }
  } catch {
    // It throws when it is looked at.
  }
  return false;
}
