// backgroundTasks(): options in, middleware out.

import { IncomingMessage, type ServerResponse } from 'node:http';
import type { Request, RequestHandler, Response } from 'express';
import { type CloseOptions, readCloseTimeout } from './close-options.js';
import { isEngine, type TaskEngine } from './engine/engine.js';
import { BackgroundTasksError } from './errors.js';
import { type Checks, checkOptions, isBoolean, isFunction, isLimit } from './options.js';
import { ResponseTasks } from './response/background-tasks.js';
import type { CloseReport } from './response/closing.js';
import { Runner, type Stats } from './response/runner.js';
import type { Settings } from './response/settings.js';
import { attemptChecks, readTaskOptions } from './task/options.js';
import { isLogger, type Logger, type OnError, Reporter } from './task/report.js';
import type { RetryOptions } from './task/retry.js';
import { runWithin } from './task/scope.js';
import type { RunWhen } from './task/when.js';

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
  /**
   * Given a promise of the end of a response's tasks, so that a serverless host stays up: at the first `add` of a response, and
   * again for what is added once that promise has resolved.
   */
  waitUntil?: ((work: Promise<void>) => void) | undefined;
  /** What `enqueue` hands over to. Default none: `enqueue` rejects with `ERR_NO_ENGINE`. */
  engine?: TaskEngine | undefined;
}

export interface BackgroundTasksMiddleware extends RequestHandler {
  /** Outside of Express: for a server of `node:http`, and what takes middleware as Express does, such as `io.engine.use()`. */
  (req: IncomingMessage, res: ServerResponse, next: () => void): void;
  /**
   * Resolves when nothing is pending, nothing runs, and every report has been taken. For tests. In a task it waits neither for
   * that task nor for those that cannot begin before it has ended.
   */
  idle(): Promise<void>;
  /**
   * Lets pending and running tasks end, also those of responses still being sent; tasks can be added meanwhile. At the
   * timeout the signals of running tasks are aborted, and they and all pending ones are given up and reported as
   * `ERR_TASK_ABANDONED`. From the end on `add` throws `ERR_TASKS_CLOSED`. Later calls return the promise of the first one, and
   * the shortest of their timeouts counts. In a task, or in `onError`, it does not wait for that.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
   */
  close(options?: CloseOptions): Promise<CloseReport>;
  /** The counts at this moment. */
  readonly stats: Readonly<Stats>;
}

/**
 * Makes the middleware that attaches `res.locals.backgroundTasks`. Mount it once, before the routes.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad and for unknown options.
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
    // Mounted twice, the first one's list stays. Its scope may have been lost in between.
    const tasks = ResponseTasks.of(res) ?? ResponseTasks.attach(settings, runner, req, res);
    if (res.locals === undefined) Object.assign(res, { locals: Object.create(null) }); // Express makes one, others do not.
    res.locals.backgroundTasks ??= tasks;
    runWithin(tasks.scope, next);
  };
  // Outside of Express they have nothing of it, and nothing of it is used here. onError and subscribers get them as they are.
  const middleware = handle as (req: IncomingMessage, res: ServerResponse, next: () => void) => void;

  const close = (closeOptions: CloseOptions = {}): Promise<CloseReport> => {
    try {
      return runner.close(readCloseTimeout(closeOptions));
    } catch (error) {
      return Promise.reject(error);
    }
  };

  return Object.defineProperty(
    Object.assign(middleware, { idle: () => runner.idle(), close, stats: runner.stats }),
    'stats',
    { get: () => runner.stats, enumerable: true },
  );
}

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
