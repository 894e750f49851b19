// The public exports, nothing else.

export type { TaskContext } from './attempt.js';
export type { BackgroundTasks } from './background-tasks.js';
export { after, currentTask } from './context.js';
export type { TaskEngine, TaskMessage, TaskRecord, TaskWorker, WorkerOptions } from './engines/engine.js';
export type { Serializable } from './engines/serialize.js';
export { BackgroundTasksError, type ErrorCode } from './errors.js';
export { type BackgroundTasksMiddleware, backgroundTasks } from './middleware.js';
export type { BackgroundTasksOptions, CloseOptions, TaskOptions } from './options.js';
export type { ErrorContext, Logger, OnError } from './report.js';
export type { ResponseOutcome, RunWhen } from './response.js';
export type { RetryOptions } from './retry.js';
export type { CloseReport, Stats } from './runner.js';
export { type StatusOptions, taskStatus } from './status.js';
export {
  type RemoteTask,
  type Task,
  type TaskHandle,
  type TaskInfo,
  type TaskOutcome,
  type TaskStatus,
  task,
} from './task.js';
export type { TaskTrace } from './tracing.js';
