// What authors of engines need of this library: the entry point express-background-tasks/engine.

export { type CloseOptions, readCloseTimeout } from '../close-options.js';
export { type Check, type Checks, checkOptions } from '../options.js';
export { type Backoff, retryDelay } from '../task/retry.js';
export {
  engineUnavailable,
  isUuid,
  load,
  store,
  type TaskEngine,
  type TaskMessage,
  type TaskRecord,
  type TaskWorker,
  unsupported,
  type WorkerOptions,
} from './engine.js';
export {
  type AttemptOutcome,
  abandonedTask,
  MessageRunner,
  maxLost,
  type StoredMessage,
  unknownTask,
} from './message-runner.js';
export { checkSerializable, serializeError, serializeResult } from './serialize.js';
