// backgroundTasks(): options in, middleware out.

import type { RequestHandler } from 'express';
import { scope } from './attempt.js';
import { ResponseTasks } from './background-tasks.js';
import { type BackgroundTasksOptions, type CloseOptions, readCloseTimeout, readOptions } from './options.js';
import { type CloseReport, Runner, type Stats } from './runner.js';

export interface BackgroundTasksMiddleware extends RequestHandler {
  /** Resolves when nothing is pending, nothing runs, and every report has been taken. For tests. */
  idle(): Promise<void>;
  /**
   * Lets pending and running tasks end, also those of responses still being sent; tasks can be added meanwhile. At the
   * timeout the signals of running tasks are aborted, and they and all pending ones are given up and reported as
   * `ERR_TASK_ABANDONED`. From the end on `add` throws `ERR_TASKS_CLOSED`. Later calls return the first one's promise.
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

  const middleware: RequestHandler = (req, res, next) => {
    const mounted = res.locals.backgroundTasks ?? ResponseTasks.of(res);
    if (mounted !== undefined) {
      res.locals.backgroundTasks = mounted; // Mounted twice: the first one's list stays.
      next();
      return;
    }
    const tasks = new ResponseTasks(settings, runner, req, res);
    res.locals.backgroundTasks = tasks;
    scope.run(tasks, next);
  };

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
