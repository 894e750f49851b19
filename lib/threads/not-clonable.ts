// The error of a task whose arguments or result cannot cross between threads.

import { BackgroundTasksError, NonRetryableError } from '../errors.js';

/** No retry follows: the next attempt would fail as well. `why` is what was found, and it may be that nothing was. */
export function notClonable(task: string, why: string | undefined, error: unknown): BackgroundTasksError {
  const cause = new NonRetryableError('another attempt would fail as well', { cause: error });
  return new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${task}": ${why ?? 'a value cannot be cloned'}`, {
    cause,
  });
}
