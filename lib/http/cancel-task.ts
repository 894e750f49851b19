// cancelTask(): the route that stops a stored task.

import type { RequestHandler } from 'express';
import type { TaskEngine } from '../engine/engine.js';
import { answerUnknown, checkRoute, idIn } from './route.js';

/** RFC 9110, section 9.2.1. */
const safeMethods: ReadonlySet<string> = new Set(['GET', 'HEAD', 'OPTIONS', 'TRACE']);

/**
 * Returns a handler for `DELETE /tasks/:id`. It answers with 204 if the task never runs, with 202 if it runs and was told to
 * stop, with 409 if it is over already, and with 404 for an unknown id. Requests with GET, HEAD, OPTIONS and TRACE,
 * which must not change anything, are left to the next handler.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` if `engine` is not an engine. A path without a parameter `id` is answered
 * with this error.
 * @example
 * app.delete('/tasks/:id', cancelTask(engine));
 */
export function cancelTask(engine: TaskEngine): RequestHandler {
  checkRoute('cancelTask()', engine);

  return async (req, res, next) => {
    if (safeMethods.has(req.method)) {
      next();
      return;
    }
    try {
      const answer = await engine.cancel(idIn(req, 'cancelTask()'));
      if (res.headersSent) return;
      res.set('Cache-Control', 'no-store');
      if (answer === undefined) answerUnknown(res);
      else if (answer === 'cancelled') res.status(204).end();
      else if (answer === 'signalled') res.status(202).json({ message: 'The task was told to stop' });
      else res.status(409).json({ error: 'The task is over' });
    } catch (error) {
      next(error); // Express 4 does not await a handler.
    }
  };
}
