// Where the error of a task goes: to onError, otherwise to the logger, otherwise to console. Nothing here throws or rejects.

import type { Request, Response } from 'express';
import { inspectShort, isAwaitable, isError, isObject } from '../foreign-value.js';
import type { Check } from '../options.js';
import type { TaskInfo } from './types.js';

/** As pino, bunyan and Fastify have it. The context holds the error as `err`, the task, and the request's method and path. */
export interface Logger {
  /** Called with one failure. If it fails itself, both errors are printed to the console. */
  error(context: object, message: string): void;
}

/** What is known about the place where a task failed. */
export interface ErrorContext {
  task: TaskInfo;
  /** What the task was called with. Empty for a task that no worker knows. The logger does not get them. */
  args: readonly unknown[];
  /** Absent where no response belongs to the task: in a worker. */
  req?: Request;
  res?: Response;
}

/** Replaces the default, which logs. If it throws or rejects, both errors are logged. */
export type OnError = (error: unknown, context: ErrorContext) => void | Promise<void>;

export class Reporter {
  readonly #logger: Logger;
  readonly #onError: OnError | undefined;

  constructor(logger: Logger | undefined, onError: OnError | undefined) {
    this.#logger = logger ?? consoleLogger;
    this.#onError = onError;
  }

  /** Whether failures go to `onError`. */
  get hasHook(): boolean {
    return this.#onError !== undefined;
  }

  /** Reports one failure. Returns a promise, which never rejects, if the hook or the logger has not finished with it. */
  report(error: unknown, context: ErrorContext): Promise<void> | undefined {
    if (this.#onError === undefined) return this.#logFailure(error, context);
    try {
      const pending: unknown = this.#onError(error, context);
      return isAwaitable(pending) ? this.#followHook(pending, error, context) : undefined;
    } catch (hookError) {
      return this.#hookFailed(hookError, error, context);
    }
  }

  /** Logs an error that is not a task's failure but would be lost otherwise. */
  log(err: unknown, task: TaskInfo | undefined, message: string): Promise<void> | undefined {
    return this.#log(task === undefined ? { err } : { err, task }, message);
  }

  async #followHook(pending: object, error: unknown, context: ErrorContext): Promise<void> {
    try {
      await pending;
    } catch (hookError) {
      await this.#hookFailed(hookError, error, context);
    }
  }

  async #hookFailed(hookError: unknown, error: unknown, context: ErrorContext): Promise<void> {
    const failure = this.#logFailure(error, context);
    const message = `onError failed on the error of background task "${context.task.name}"${thrown(hookError)}`;
    await this.#log({ err: hookError, task: context.task }, message);
    await failure;
  }

  #logFailure(err: unknown, { task, req }: ErrorContext): Promise<void> | undefined {
    const attempts = task.attempt > 1 ? ` after ${task.attempt} attempts` : '';
    const message = `Background task "${task.name}" failed${attempts}${thrown(err)}`;
    return this.#log(req === undefined ? { err, task } : { err, task, request: describeRequest(req) }, message);
  }

  #log(context: LogContext, message: string): Promise<void> | undefined {
    try {
      const pending: unknown = this.#logger.error(context, message);
      return isAwaitable(pending) ? followLogger(pending, context, message) : undefined;
    } catch (loggerError) {
      loggerFailed(loggerError, context, message);
      return undefined;
    }
  }
}

export const isLogger: Check = (value) =>
  isObject(value) && typeof Reflect.get(value, 'error') === 'function'
    ? undefined
    : 'an object with a method error(context, message)';

interface LogContext {
  err: unknown;
  task?: TaskInfo;
  request?: string;
}

const consoleLogger = {
  error: ({ err, request }: LogContext, message: string): void => {
    printError(request === undefined ? `${message}:` : `${message} (${request}):`, err);
  },
};

async function followLogger(pending: object, context: LogContext, message: string): Promise<void> {
  try {
    await pending;
  } catch (loggerError) {
    loggerFailed(loggerError, context, message);
  }
}

function loggerFailed(loggerError: unknown, context: LogContext, message: string): void {
  consoleLogger.error(context, message);
  printError('The logger of background tasks failed:', loggerError);
}

function printError(message: string, error: unknown): void {
  try {
    print(message, error);
  } catch {
    printUnprintable(message);
  }
}

function printUnprintable(message: string): void {
  try {
    print(message, 'a value that throws when it is looked at');
  } catch {
    // console.error itself is broken: there is nowhere left to report to.
  }
}

/** The message is not a format string: a path like /caf%c3%a9 would swallow the error. %% prints % if an argument follows. */
function print(message: string, error: unknown): void {
  console.error(message.replaceAll('%', '%%'), error);
}

/** Loggers write nothing for a thrown `undefined`, so the message says what was thrown unless it is an Error. */
function thrown(error: unknown): string {
  return isError(error) ? '' : `: it threw ${inspectShort(error)}`;
}

/** Without the query string, which may hold secrets. Outside of Express there is no `originalUrl`. */
export function describeRequest(req: Pick<Request, 'method' | 'url'> & Partial<Request>): string {
  return `${req.method} ${req.originalUrl ?? req.url}`.replace(/\?.*/s, '');
}
