// The entry point express-background-tasks/bull-board: stored tasks, and those of this process, on the page of @bull-board/api.

export { TaskEngineAdapter } from './engine-adapter.js';
export type { BoardAdapterOptions, TaskEngineAdapterOptions } from './options.js';
export { ResponseTasksAdapter } from './response-adapter.js';
