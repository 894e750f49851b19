// The options of the two adapters: how the board names a queue, and what it offers for it.

import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { type Check, type Checks, checkOptions, isBoolean, isText } from '../options.js';

export interface BoardAdapterOptions {
  /**
   * The queue's name, unique on its board. It stands in addresses, and has no percent sign. Default `tasks`, of a
   * `ResponseTasksAdapter` `responses`.
   */
  name?: string | undefined;
  /** What the page calls the queue. Default: its name. */
  displayName?: string | undefined;
  /** A sentence below that. Default none. */
  description?: string | undefined;
  /** What parts the names of queues into groups: with `:` the queue `shop:tasks` stands in the group `shop`. Default none. */
  delimiter?: string | undefined;
}

export interface TaskEngineAdapterOptions extends BoardAdapterOptions {
  /** Whether the board shows tasks and changes none: its buttons are hidden, its routes answer 405. Default false. */
  readOnlyMode?: boolean | undefined;
  /** Whether the board has the buttons that retry failed tasks. Default true. */
  allowRetries?: boolean | undefined;
}

/** bull-board decodes a queue's name once more than it was encoded. */
const isName: Check = (value) =>
  isText(value) === undefined && !String(value).includes('%') ? undefined : 'a string that is not empty and has no %';

export const boardChecks: Checks<BoardAdapterOptions> = {
  name: isName,
  displayName: isText,
  description: isText,
  delimiter: isText,
};

export const engineAdapterChecks: Checks<TaskEngineAdapterOptions> = {
  ...boardChecks,
  readOnlyMode: isBoolean,
  allowRetries: isBoolean,
};

/** @throws BackgroundTasksError `ERR_INVALID_OPTION`. */
export function checkAdapter<Options extends object>(
  of: string,
  subject: unknown,
  check: Check,
  options: Options,
  checks: Checks<Options>,
): void {
  const expected = check(subject);
  if (expected !== undefined) {
    const message = `${of}: the argument must be ${expected}, not ${inspectShort(subject)}`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
  }
  checkOptions(of, options, checks);
}
