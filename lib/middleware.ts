// backgroundTasks(): options in, middleware out.

import { IncomingMessage, type ServerResponse } from 'node:http';
import type { Request, RequestHandler, Response } from 'express';
import { type CloseOptions, readCloseTimeout } from './close-options.js';
import { isEngine, type TaskEngine } from './engine/engine.js';
import { BackgroundTasksError } from './errors.js';
import { isObject } from './foreign-value.js';
import { type Check, type Checks, checkOptions, isBoolean, isFunction, isLimit } from './options.js';
import { ResponseTasks } from './response/background-tasks.js';
import type { CloseReport } from './response/closing.js';
import { Runner, type Stats } from './response/runner.js';
import type { Settings } from './response/settings.js';
import type { TaskSnapshot } from './response/snapshot.js';
import { attemptChecks, readTaskOptions } from './task/options.js';
import { isLogger, type Logger, type OnError, Reporter } from './task/report.js';
import type { RetryOptions } from './task/retry.js';
import { runWithin } from './task/scope.js';
import type { RunWhen } from './task/when.js';

export interface BackgroundTasksOptions {
  /** Gets each failure of a task, unless `onError` is given. Default: `console`, with the task's name and the error's stack. */
  logger?: Logger | undefined;
  /** Called with each failure of a task, instead of the logger. */
  onError?: OnError | undefined;
  /** Which responses the tasks run after. After other responses they end as `skipped`. Default `'always'`. */
  when?: RunWhen | undefined;
  /** Whether a failed task skips the rest of its response's tasks, as in Starlette. Default false. */
  stopOnError?: boolean | undefined;
  /** Time limit of one attempt, in ms. Default none. */
  timeout?: number | undefined;
  /** How many times a failed task is tried again, or how. Default 0. */
  retries?: number | RetryOptions | undefined;
  /** How many responses' tasks run at the same time. Default Infinity. */
  concurrency?: number | undefined;
  /** How many tasks, over all responses, may be pending or running. Beyond that `add` throws. Default Infinity. */
  maxPending?: number | undefined;
  /**
   * Keeps a serverless host up: called with a promise that resolves when the tasks of a response have ended. It is called at the
   * first `add` of a response, and again if a task is added after that promise has resolved.
   */
  waitUntil?: ((work: Promise<void>) => void) | undefined;
  /** Where `enqueue` stores tasks. Default none: `enqueue` rejects with `ERR_NO_ENGINE`. */
  engine?: TaskEngine | undefined;
}

export interface BackgroundTasksMiddleware extends RequestHandler {
  /** Outside of Express: for a `node:http` server, and for what takes middleware as Express does, such as `io.engine.use()`. */
  (req: IncomingMessage, res: ServerResponse, next: () => void): void;
  /**
   * Resolves when no task is pending or running and every report has been taken. For tests. Inside a task it waits neither for
   * that task nor for those that cannot begin before it ends.
   */
  idle(): Promise<void>;
  /**
   * Waits until pending and running tasks have ended, including those of responses that are still being sent. Tasks can be added
   * meanwhile. At the timeout the signals of running tasks are aborted, and all tasks that are left are reported as
   * `ERR_TASK_ABANDONED`. After that `add` throws `ERR_TASKS_CLOSED`. Further calls return the same promise, and the shortest
   * timeout counts. Called inside a task or `onError`, it does not wait for its caller.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
   */
  close(options?: CloseOptions): Promise<CloseReport>;
  /** The tasks that run and those that wait, running ones first. For a look at what goes on: with many tasks it takes its time. */
  list(): TaskSnapshot[];
  /** The counts at this moment. */
  readonly stats: Readonly<Stats>;
}

/**
 * Returns the middleware that attaches `res.locals.backgroundTasks`. Mount it once, before the routes.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid or unknown options.
 * @example
 * app.use(backgroundTasks());
 * app.post('/send-notification/:email', (req, res) => {
 *   res.locals.backgroundTasks.add(writeNotification, req.params.email, { message: 'some notification' });
 *   res.json({ message: 'Notification sent in the background' });
 * });
 */
export function backgroundTasks(options: BackgroundTasksOptions = {}): BackgroundTasksMiddleware {
  const settings = readOptions(options);
  const runner = new Runner(settings);

  const handle = (req: Request, res: Response, next: () => void): void => {
    // If it is mounted twice, the first list stays. Its scope is entered again, since it may have been lost in between.
    const tasks = ResponseTasks.of(res) ?? ResponseTasks.attach(settings, runner, req, res);
    if (res.locals === undefined) Object.assign(res, { locals: Object.create(null) }); // Only Express sets it.
    res.locals.backgroundTasks ??= tasks;
    runWithin(tasks.scope, next);
  };
  // Outside of Express the two have none of its methods. None is used here, and onError and subscribers get them as they are.
  const middleware = handle as (req: IncomingMessage, res: ServerResponse, next: () => void) => void;

  const close = (closeOptions: CloseOptions = {}): Promise<CloseReport> => {
    try {
      return runner.close(readCloseTimeout(closeOptions));
    } catch (error) {
      return Promise.reject(error);
    }
  };

  return Object.defineProperty(
    Object.assign(middleware, { idle: () => runner.idle(), close, list: () => runner.list(), stats: runner.stats }),
    'stats',
    { get: () => runner.stats, enumerable: true },
  );
}

/** For those that are given it. */
export const isMiddleware: Check = (value) =>
  isObject(value) && ['close', 'idle'].every((name) => typeof Reflect.get(value, name) === 'function')
    ? undefined
    : 'what backgroundTasks() returned';

function readOptions(options: BackgroundTasksOptions): Settings {
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

export const optionChecks: Checks<BackgroundTasksOptions> = {
  ...attemptChecks,
  logger: isLogger,
  onError: isFunction,
  stopOnError: isBoolean,
  concurrency: isLimit,
  maxPending: isLimit,
  waitUntil: isFunction,
  engine: isEngine,
};
