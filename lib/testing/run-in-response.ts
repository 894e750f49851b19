// runInResponse(): runs code as the handler of a request does, without HTTP.

import { IncomingMessage, ServerResponse } from 'node:http';
import { Socket } from 'node:net';
import { Writable } from 'node:stream';
import type { Response } from 'express';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { type BackgroundTasksOptions, backgroundTasks, optionChecks } from '../middleware.js';
import { type Check, checkOptions } from '../options.js';
import type { TaskHandle } from '../task/types.js';

export interface RunInResponseOptions extends BackgroundTasksOptions {
  /** The status that the response ends with. Default 200, or 500 where the function throws. */
  status?: number | undefined;
}

export interface ResponseRun<T> {
  /** What the function returned, awaited. */
  value: T;
  /** The handles of the tasks that were added, in their order. They have ended. */
  tasks: TaskHandle[];
}

/**
 * Calls a function as if it were a handler behind backgroundTasks(): `after()`, `enqueue()` and `res.locals.backgroundTasks` work
 * in it. Then the response ends, and its tasks run. Resolves when they have ended.
 *
 * Rejects with what the function throws, once the tasks have ended all the same. Throws BackgroundTasksError
 * `ERR_INVALID_OPTION` for bad options.
 *
 * @example
 * const { value, tasks } = await runInResponse(() => createOrder(42), { engine: memory() });
 * expect(tasks.map(({ name, status }) => [name, status])).toEqual([['sendReceipt', 'succeeded']]);
 */
export async function runInResponse<T>(
  fn: (res: Response) => T | Promise<T>,
  options: RunInResponseOptions = {},
): Promise<ResponseRun<T>> {
  if (typeof fn !== 'function') {
    const message = `runInResponse(): the first argument must be a function, not ${inspectShort(fn)}`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
  }
  checkOptions('runInResponse()', options, { ...optionChecks, status: isStatus });
  const { status, ...ofMiddleware } = options;
  const middleware = backgroundTasks(ofMiddleware);
  const { req, res } = memoryResponse();
  const tasks: TaskHandle[] = [];
  try {
    const value = await new Promise<T>((resolve, reject) => {
      middleware(req, res, () => {
        keepHandles(res, tasks);
        (async () => fn(res as Response))().then(resolve, reject);
      });
    });
    if (status !== undefined && !res.headersSent) res.statusCode = status;
    return { value, tasks };
  } catch (error) {
    if (!res.headersSent) res.statusCode = status ?? 500;
    throw error;
  } finally {
    res.end();
    await middleware.idle();
  }
}

const isStatus: Check = (value) =>
  Number.isInteger(value) && Number(value) >= 100 && Number(value) <= 999 ? undefined : 'a status code from 100 to 999';

function memoryResponse(): { req: IncomingMessage; res: ServerResponse & Pick<Response, 'locals'> } {
  const req = Object.assign(new IncomingMessage(new Socket()), { method: 'GET', url: '/' });
  const res = Object.assign(new ServerResponse(req), { locals: {} as Response['locals'] });
  const nowhere = new Writable({ write: (_chunk, _encoding, written) => written() });
  res.assignSocket(nowhere as Socket);
  return { req, res };
}

/** after() adds by the same object. */
function keepHandles({ locals }: Pick<Response, 'locals'>, handles: TaskHandle[]): void {
  const { backgroundTasks: tasks } = locals;
  const add = tasks.add.bind(tasks);
  tasks.add = (task, ...args) => {
    const handle = add(task, ...args);
    handles.push(handle);
    return handle;
  };
}
