// What code finds out about where it runs, by AsyncLocalStorage: the response being handled, the task being run.

import { BackgroundTasksError } from '../errors.js';
import { scope, type TaskContext } from './scope.js';
import type { SerializableArguments } from './serializable.js';
import type { RemoteTask, Task } from './task.js';
import type { TaskFunction, TaskHandle } from './types.js';

/**
 * Adds a task to the response being handled, from anywhere in the call tree of its request, and from inside a task.
 *
 * @throws BackgroundTasksError `ERR_NO_RESPONSE_CONTEXT` where no response is being handled, and what `add` throws.
 */
export function after<A extends readonly unknown[], R = unknown>(
  task: TaskFunction<A, R>,
  ...args: A
): TaskHandle<Awaited<R>> {
  const response = scope.getStore()?.response;
  if (response === undefined) {
    throw new BackgroundTasksError(
      'ERR_NO_RESPONSE_CONTEXT',
      'after() found no response being handled: mount backgroundTasks() before the code that calls it, or, where a library ' +
        'loses the context, pass res.locals.backgroundTasks on and call its add()',
    );
  }
  return response.add(task, ...args);
}

/** The task that the calling code belongs to, also after an `await`. Undefined outside of tasks. */
export function currentTask(): TaskContext | undefined {
  return scope.getStore()?.task;
}

/**
 * Hands a task over to the engine of the response being handled, or of the worker whose task is running, as
 * `res.locals.backgroundTasks.enqueue` and `engine.enqueue` do.
 *
 * Rejects with BackgroundTasksError `ERR_NO_RESPONSE_CONTEXT` anywhere else: call `engine.enqueue()` there. Otherwise it rejects
 * as those do.
 */
export async function enqueue<A extends readonly unknown[]>(
  task: Task<A> | RemoteTask<A>,
  ...args: SerializableArguments<A>
): Promise<{ id: string }> {
  const enqueuer = scope.getStore()?.enqueuer;
  if (enqueuer !== undefined) return enqueuer.enqueue(task, ...args);
  throw new BackgroundTasksError(
    'ERR_NO_RESPONSE_CONTEXT',
    'enqueue() found neither a response being handled nor a worker whose task is running: call engine.enqueue()',
  );
}
