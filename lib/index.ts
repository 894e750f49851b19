/**
 * The middleware, tasks, and what leads from a request to a stored task.
 *
 * @module express-background-tasks
 */

export type { CloseOptions } from './close-options.js';
export type {
  EngineStats,
  EnqueueMany,
  GetOptions,
  ListFilter,
  ScheduleOptions,
  TaskEngine,
  TaskFilter,
  TaskRecord,
  TaskSchedule,
  TaskState,
  TaskWorker,
  TransactionEnqueuer,
  WatchOptions,
  WorkerHealth,
  WorkerOptions,
} from './engine/engine.js';
export type { TaskMessage } from './engine/message.js';
export type { EnqueueTrace } from './engine/tracing.js';
export { BackgroundTasksError, type ErrorCode, NonRetryableError } from './errors.js';
export { cancelTask } from './http/cancel-task.js';
export { type HealthOptions, taskHealth } from './http/task-health.js';
export { type StatusOptions, taskStatus } from './http/task-status.js';
export { type BackgroundTasksMiddleware, type BackgroundTasksOptions, backgroundTasks } from './middleware.js';
export type { BackgroundTasks } from './response/background-tasks.js';
export type { CloseReport } from './response/closing.js';
export type { Stats } from './response/runner.js';
export type { TaskSnapshot } from './response/snapshot.js';
export { after, currentTask, enqueue } from './task/context.js';
export type { TaskOptions } from './task/options.js';
export type { ErrorContext, Logger, OnError } from './task/report.js';
export type { RetryOptions } from './task/retry.js';
export type { TaskContext } from './task/scope.js';
export type { Enqueue, Serializable, SerializableArguments } from './task/serializable.js';
export { type RemoteTask, type Task, task } from './task/task.js';
export type { TaskTrace } from './task/tracing.js';
export type { TaskHandle, TaskInfo, TaskOutcome, TaskStatus } from './task/types.js';
export type { ResponseOutcome, RunWhen } from './task/when.js';
