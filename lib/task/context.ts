// What code finds out about where it runs, by AsyncLocalStorage: the response being handled, the task being run.

import { BackgroundTasksError } from '../errors.js';
import { scope, type TaskContext } from './scope.js';
import type { TaskFunction, TaskHandle } from './types.js';

/**
 * Adds a task to the response being handled, from anywhere in the call tree of its request, also from inside a task.
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

/** The task that the calling code belongs to, through every `await` of it; undefined outside of tasks. */
export function currentTask(): TaskContext | undefined {
  return scope.getStore()?.task;
}
