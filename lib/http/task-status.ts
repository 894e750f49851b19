// taskStatus(): the route that shows the state of a stored task.

import type { RequestHandler, Response } from 'express';
import { isEngine, isOver, type TaskEngine, type TaskRecord } from '../engine/engine.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { checkOptions, isBoolean } from '../options.js';

export interface StatusOptions {
  /** Whether the answer includes the task's `result` or `error`. Default false, since anybody who knows the id may ask. */
  result?: boolean | undefined;
}

/**
 * Returns a handler for `GET /tasks/:id`. It answers with the id, name, state, attempts and times of a stored task, never with
 * its arguments, and with 404 for an unknown id. Until the task has ended, `Retry-After: 1` tells clients when to ask again.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid options.
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
  // Picked by name: the record of another author's engine may hold more, such as the arguments.
  const { id, name, state, attempts, enqueuedAt, startedAt, finishedAt, result, error } = record;
  if (!isOver(state)) res.set('Retry-After', '1');
  const status = { id, name, state, attempts, enqueuedAt, startedAt, finishedAt };
  // Not the stack, which tells about the server.
  const shown = error && { name: error.name, message: error.message };
  res.json(withResult ? { ...status, result, error: shown } : status);
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
