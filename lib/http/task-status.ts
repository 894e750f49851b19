// taskStatus(): the route that shows the state of a stored task, at once, once it is over, or as it changes.

import type { Request, RequestHandler, Response } from 'express';
import { clearTimeout, setTimeout } from '../clock.js';
import { isOver, type TaskEngine, type TaskRecord } from '../engine/engine.js';
import { type Check, checkOptions, isBoolean } from '../options.js';
import { streamStatus } from './event-stream.js';
import { openUntil } from './open-answers.js';
import { preferredWait } from './prefer.js';
import { answerUnknown, checkRoute, idIn } from './route.js';
import { statusOf } from './status.js';

export interface StatusOptions {
  /** Whether the answer includes the task's `result` or `error`. Default false, since anybody who knows the id may ask. */
  result?: boolean | undefined;
  /** How long an answer waits at most where the client sends `Prefer: wait=N`, in seconds. 0 ignores the header. Default 30. */
  wait?: number | undefined;
}

/**
 * Returns a handler for `GET /tasks/:id`. It answers with the id, name, state, attempts, progress and times of a stored task,
 * never with its arguments, and with 404 for an unknown id. Until the task has ended, `Retry-After: 1` tells clients when to ask
 * again.
 *
 * With `Prefer: wait=N` (RFC 7240) it answers when the task is over, or after N seconds. With `Accept: text/event-stream` the
 * answer is a stream of server-sent events: the same fields, at once and after each change, until the task is over. An
 * `EventSource` that connects again after that is told to stop, with 204. Requests with another method than GET or HEAD are
 * left to the next handler.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid options. A path without a parameter `id` is answered with this
 * error.
 * @example
 * app.get('/tasks/:id', taskStatus(engine));
 */
export function taskStatus(engine: TaskEngine, options: StatusOptions = {}): RequestHandler {
  checkRoute('taskStatus()', engine);
  checkOptions('taskStatus()', options, { result: isBoolean, wait: isWait });
  const withResult = options.result ?? false;
  const longestWait = options.wait ?? 30;

  return async (req, res, next) => {
    if (req.method !== 'GET' && req.method !== 'HEAD') {
      next();
      return;
    }
    try {
      const id = idIn(req, 'taskStatus()');
      const record = await engine.get(id, { result: withResult });
      if (res.headersSent) return;
      res.vary('Accept, Prefer');
      if (record === undefined) answerUnknown(res);
      else if (req.accepts(['json', eventStream]) === eventStream) {
        await streamStatus(engine, record, withResult, req, res);
      } else {
        const latest = await wait(engine, record, withResult, longestWait, req, res);
        if (!res.headersSent) answer(res, latest, withResult);
      }
    } catch (error) {
      next(error); // Express 4 does not await a handler.
    }
  };
}

const eventStream = 'text/event-stream';

/** Returns the record as it is at the end of the time that the client wants to wait. */
async function wait(
  engine: TaskEngine,
  record: TaskRecord,
  withResult: boolean,
  longestWait: number,
  req: Request,
  res: Response,
): Promise<TaskRecord | undefined> {
  const wanted = preferredWait(req.headers['prefer']);
  if (wanted === undefined || longestWait === 0 || req.method === 'HEAD') return record;
  const seconds = Math.min(wanted, longestWait);
  res.set('Preference-Applied', `wait=${seconds}`);
  if (isOver(record.state) || seconds === 0) return record;
  const open = openUntil(res);
  const timer = setTimeout(() => open.abort(), seconds * 1000);
  try {
    let latest: TaskRecord | undefined = record;
    for await (const next of engine.watch(record.id, { signal: open.signal, result: withResult })) latest = next;
    return isOver(latest.state) || open.signal.aborted ? latest : undefined; // It was removed.
  } finally {
    clearTimeout(timer);
  }
}

function answer(res: Response, record: TaskRecord | undefined, withResult: boolean): void {
  if (record === undefined) {
    answerUnknown(res);
    return;
  }
  res.set('Cache-Control', 'no-store');
  if (!isOver(record.state)) res.set('Retry-After', '1');
  res.json(statusOf(record, withResult));
}

/** Longer than a day is a mistake in the unit. */
const isWait: Check = (value) =>
  typeof value === 'number' && Number.isInteger(value) && value >= 0 && value <= 86_400
    ? undefined
    : 'whole seconds, from 0 to 86400';
