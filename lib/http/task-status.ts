// taskStatus(): the route that tells how a stored task stands.

import type { RequestHandler, Response } from 'express';
import { isEngine, type TaskEngine, type TaskRecord } from '../engine/engine.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { checkOptions, isBoolean } from '../options.js';

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
export function taskStatus(engine: TaskEngine, options: StatusOptions = {}): RequestHandler {
  checkStatusOptions(engine, options);
  const withResult = options.result ?? false;

  return async (req, res, next) => {
    try {
      const record = await engine.get(String(req.params['id']), { result: withResult });
      if (!res.headersSent) answer(res, record, withResult);
    } catch (error) {
      next(error); // Express 4 does not await a handler.
    }
  };
}

function answer(res: Response, record: TaskRecord | undefined, withResult: boolean): void {
  res.set('Cache-Control', 'no-store');
  if (record === undefined) {
    res.status(404).json({ error: 'No such task' });
    return;
  }
  // Picked by name: the record of somebody else's engine may hold more, arguments among them.
  const { id, name, state, attempts, enqueuedAt, startedAt, finishedAt, result, error } = record;
  if (state === 'queued' || state === 'running') res.set('Retry-After', '1');
  const status = { id, name, state, attempts, enqueuedAt, startedAt, finishedAt };
  res.json(withResult ? { ...status, result, error } : status);
}

function checkStatusOptions(engine: TaskEngine, options: StatusOptions): void {
  if (isEngine(engine) !== undefined) {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      `taskStatus(): the first argument must be an engine, not ${inspectShort(engine)}`,
    );
  }
  checkOptions('taskStatus()', options, { result: isBoolean });
}
