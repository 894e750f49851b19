// What becomes of a task whose workers die while it runs. It may be what kills them, or it may only have stood beside that.

import { BackgroundTasksError } from '../errors.js';

/** After this many workers that died while they ran it, a task has failed. For drivers that cannot tell who ran alone. */
export const mostDeaths = 5;

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

/** The error of a task that is given up. `timesAlone`: how many of its workers died while it ran alone, where that is known. */
export function givenUpError(name: string, timesAlone?: number): BackgroundTasksError {
  const deaths = timesAlone === undefined ? `while it ran, ${mostDeaths}` : `while it ran alone, ${timesAlone}`;
  return new BackgroundTasksError('ERR_TASK_ABANDONED', `task "${name}" was given up: its worker died ${deaths} times`);
}
