// The entry point express-background-tasks/testing: an engine without a server, and responses without HTTP.

export { type MemoryEngine, memory } from './memory.js';
export { type ResponseRun, type RunInResponseOptions, runInResponse } from './run-in-response.js';
