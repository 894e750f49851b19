// What becomes of a task whose workers die while it runs.

import { BackgroundTasksError } from '../errors.js';

/** After this many workers that died while they ran it, a task has failed: it may be what kills them. */
export const mostDeaths = 5;

/** The error of a task that is given up. */
export function givenUpError(name: string): BackgroundTasksError {
  const reason = `its worker died while it ran, ${mostDeaths} times`;
  return new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${name}" was given up: ${reason}`);
}
