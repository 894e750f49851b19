/**
 * What authors of engines need of this library.
 *
 * @module engine
 */

export { type Check, type Checks, checkOptions } from '../options.js';
export { type Backoff, retryDelay } from '../task/retry.js';
export { unsupported } from './calls.js';
export { createEngine } from './create-engine.js';
export { withDeadline } from './deadline.js';
export { givenUpError, isGivenUp, isSuspect } from './deaths.js';
export type {
  DriverWorker,
  EngineDriver,
  Page,
  ScheduleStore,
  Selection,
  StoredSchedule,
} from './driver.js';
export type {
  EngineStats,
  TaskEngine,
  TaskFilter,
  TaskRecord,
  TaskState,
  TaskWorker,
  WorkerOptions,
} from './engine.js';
export { type Headers, parseHeaders } from './headers.js';
export { timeOfId } from './id.js';
export type { TaskMessage } from './message.js';
export { MessageRunner } from './message-runner.js';
export type { Progress } from './progress.js';
export type { AttemptOutcome, StoredMessage } from './run.js';
export { serializeError, serializeResult } from './serialize.js';
export type { ReportedTask } from './worker-reports.js';
