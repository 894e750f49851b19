// The options of the middleware, parsed, for the code that runs the tasks.

import type { TaskEngine } from '../engine/engine.js';
import type { TaskSettings } from '../task/options.js';
import type { Reporter } from '../task/report.js';

export interface Settings extends TaskSettings {
  readonly reporter: Reporter;
  readonly stopOnError: boolean;
  readonly concurrency: number;
  readonly maxPending: number;
  readonly waitUntil: ((work: Promise<void>) => void) | undefined;
  readonly engine: TaskEngine | undefined;
}
