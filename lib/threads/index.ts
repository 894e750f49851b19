/**
 * Tasks that compute, in threads of piscina.
 *
 * @module threads
 */

export { type ThreadOptions, type ThreadPool, type ThreadTaskOptions, threads } from './threads.js';
