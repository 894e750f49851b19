// The entry point express-background-tasks/shutdown: the end of a process, in the right order.

export { type GracefulShutdown, gracefulShutdown, type ShutdownOptions } from './graceful-shutdown.js';
export type { ShutdownReport } from './phases.js';
export type { PhaseName, ShutdownFailure } from './run-phases.js';
export type { AnyHttpServer } from './stoppable-server.js';
