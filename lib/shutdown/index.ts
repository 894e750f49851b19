/**
 * The end of a process, in the right order.
 *
 * @module shutdown
 */

export { type GracefulShutdown, gracefulShutdown, type ShutdownOptions } from './graceful-shutdown.js';
export type { ShutdownReport } from './phases.js';
export type { PhaseName, ShutdownFailure } from './run-phases.js';
export type { AnyHttpServer } from './stoppable-server.js';
