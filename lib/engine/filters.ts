// Which tasks list(), retry() and remove() are about.

import { BackgroundTasksError } from '../errors.js';
import { type Checks, checkOptions, isCount, isText } from '../options.js';
import type { Page, Selection } from './driver.js';
import type { ListFilter, TaskFilter, TaskState } from './engine.js';
import { knownId } from './id.js';

const states: readonly TaskState[] = ['queued', 'running', 'succeeded', 'failed', 'cancelled'];

const filterChecks: Checks<TaskFilter> = {
  state: (value) => (states.some((state) => state === value) ? undefined : `one of ${states.join(', ')}`),
  name: isText,
};

const pageChecks: Checks<ListFilter> = {
  ...filterChecks,
  limit: (value) =>
    Number.isInteger(value) && Number(value) >= 1 && Number(value) <= 1000
      ? undefined
      : 'a whole number from 1 to 1000',
  after: isText,
  offset: isCount,
};

/**
 * Undefined for a page after an id that cannot be one: it is empty.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION`.
 */
export function readPage(filter: ListFilter): Page | undefined {
  checkOptions('list()', filter, pageChecks);
  const { state, name, limit = 50, after, offset = 0 } = filter;
  if (after === undefined) return { ...given(state, name), limit, offset };
  const id = knownId(after);
  return id === undefined ? undefined : { ...given(state, name), limit, offset, after: id };
}

/**
 * Undefined for an id that cannot be one.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION`.
 */
export function readSelection(call: string, selection: string | TaskFilter): Selection | undefined {
  if (typeof selection === 'string') {
    const id = knownId(selection);
    return id === undefined ? undefined : { id };
  }
  checkOptions(call, selection, filterChecks);
  const { state, name } = selection;
  // An empty filter is mostly a variable that is undefined by mistake.
  if (state === undefined && name === undefined) {
    throw new BackgroundTasksError('ERR_INVALID_OPTION', `${call}: give it an id, or a filter with "state" or "name"`);
  }
  return given(state, name);
}

function given(state: TaskState | undefined, name: string | undefined): TaskFilter {
  return { ...(state !== undefined && { state }), ...(name !== undefined && { name }) };
}
