// What the routes of one task have in common: the engine that they ask, and the id in their path.

import type { Request, Response } from 'express';
import { isEngine, type TaskEngine } from '../engine/engine.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';

/** @throws BackgroundTasksError `ERR_INVALID_OPTION`. */
export function checkRoute(of: string, engine: TaskEngine): void {
  if (isEngine(engine) === undefined) return;
  const message = `${of}: the first argument must be an engine, not ${inspectShort(engine)}`;
  throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
}

/** @throws BackgroundTasksError `ERR_INVALID_OPTION`: no id at all is a mistake in the program, and not an unknown task. */
export function idIn(req: Request, of: string): string {
  const id: unknown = req.params['id'];
  if (id !== undefined) return String(id);
  const message = `${of}: its path must have a parameter "id", as in /tasks/:id`;
  throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
}

export function answerUnknown(res: Response): void {
  res.set('Cache-Control', 'no-store').status(404).json({ error: 'No such task' });
}
