// taskStatus(): the route that tells how a stored task stands.

import type { RequestHandler } from 'express';
import type { TaskEngine, TaskRecord } from './engines/engine.js';
import { checkStatusOptions } from './options.js';

export interface StatusOptions {
  /** Whether the answer holds the task's `result` or `error`. Default false: who knows an id need not be told them. */
  result?: boolean | undefined;
}

/**
 * A handler for `GET /tasks/:id`: answers with id, name, state, attempts and times of a stored task, never its arguments;
 * with 404 for an unknown id. While the task is not over, `Retry-After: 1` tells pollers when to come again.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
 * @example
 * app.get('/tasks/:id', taskStatus(engine));
 */
export function taskStatus(engine: TaskEngine, options: StatusOptions = {}): RequestHandler<{ id: string }> {
  checkStatusOptions(engine, options);
  const withResult = options.result ?? false;

  return async (req, res, next) => {
    let record: TaskRecord | undefined;
    try {
      record = await engine.get(req.params.id);
    } catch (error) {
      next(error); // Express 4 does not await a handler.
      return;
    }
    res.set('Cache-Control', 'no-store');
    if (record === undefined) {
      res.status(404).json({ error: 'No such task' });
      return;
    }
    const { result, error, ...status } = record;
    if (status.state === 'queued' || status.state === 'running') res.set('Retry-After', '1');
    res.json(withResult ? { ...status, result, error } : status);
  };
}
