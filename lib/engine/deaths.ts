// What becomes of a task whose workers die while it runs. It may be what kills them, or it may only have stood beside that.

import { BackgroundTasksError } from '../errors.js';

/** After so many deaths of its worker a task is a suspect: it runs alone in its process, so that it takes no other along. */
const suspectAfter = 3;

/** A suspect has failed once its worker has died so many times while it ran alone. */
const mostDeathsAlone = 2;

export function isSuspect(deaths: number): boolean {
  return deaths >= suspectAfter;
}

/** Of a suspect that is to run again: whether it has begun alone too often, and none of those workers lived to tell the end. */
export function isGivenUp(timesAlone: number): boolean {
  return timesAlone >= mostDeathsAlone;
}

/** The error of a task that is given up. */
export function givenUpError(name: string, timesAlone: number): BackgroundTasksError {
  const message = `task "${name}" was given up: its worker died while it ran alone, ${timesAlone} times`;
  return new BackgroundTasksError('ERR_TASK_ABANDONED', message);
}
