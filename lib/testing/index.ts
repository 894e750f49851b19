/**
 * An engine without a server, and responses without HTTP.
 *
 * @module testing
 */

export { type MemoryEngine, memory } from './memory.js';
export { type ResponseRun, type RunInResponseOptions, runInResponse } from './run-in-response.js';
