// The options of close(), of the middleware and of every worker.

import { checkOptions, isTimeoutOrZero } from './options.js';

export interface CloseOptions {
  /** How long pending and running tasks may take to end, in ms. Default 10000. */
  timeout?: number | undefined;
}

/** @throws BackgroundTasksError `ERR_INVALID_OPTION`. */
export function readCloseTimeout(options: CloseOptions): number {
  checkOptions('close()', options, { timeout: isTimeoutOrZero });
  return options.timeout ?? 10_000;
}
