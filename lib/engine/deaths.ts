// What happens to a task whose workers die while it runs. It may have killed them, or it may only have run beside the task
// that did.

import { BackgroundTasksError } from '../errors.js';

/** After this many deaths of its worker a task is a suspect: it runs alone in its process, so that it takes no others with it. */
const suspectAfter = 3;

/** A suspect fails once its worker has died this many times while it ran alone. */
const mostDeathsAlone = 2;

/** Whether a task runs alone, since so many workers have died while they ran it. */
export function isSuspect(deaths: number): boolean {
  return deaths >= suspectAfter;
}

/** For a suspect that is to run again: whether it has begun alone too often, with no worker that lived to store how it ended. */
export function isGivenUp(timesAlone: number): boolean {
  return timesAlone >= mostDeathsAlone;
}

/** The error of a task that is given up. */
export function givenUpError(name: string, timesAlone: number): BackgroundTasksError {
  const message = `task "${name}" was given up: its worker died while it ran alone, ${timesAlone} times`;
  return new BackgroundTasksError('ERR_TASK_ABANDONED', message);
}
