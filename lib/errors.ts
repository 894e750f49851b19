// The one error class of this library and its codes. What each code means and what to do is in docs/errors.md.

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

  constructor(code: ErrorCode, message: string, options?: ErrorOptions) {
    super(message, options);
    this.code = code;
    const status = statuses[code];
    if (status !== undefined) this.status = status;
  }

  static {
    BackgroundTasksError.prototype.name = 'BackgroundTasksError';
  }
}
