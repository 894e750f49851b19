/**
 * Stored tasks, and those of this process, on the page of @bull-board/api.
 *
 * @module bull-board
 */

export { TaskEngineAdapter } from './engine-adapter.js';
export type { BoardAdapterOptions, TaskEngineAdapterOptions } from './options.js';
export { ResponseTasksAdapter } from './response-adapter.js';
