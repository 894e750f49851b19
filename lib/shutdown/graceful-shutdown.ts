// gracefulShutdown(): options in, listeners installed. What starts a shutdown is here; what it does is in its phases.

import { Server } from 'node:net';
import closeWithGrace from 'close-with-grace';
import { areWorkers, isEngine, type TaskEngine, type TaskWorker } from '../engine/engine.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort } from '../foreign-value.js';
import { type BackgroundTasksMiddleware, isMiddleware } from '../middleware.js';
import { type Checks, checkOptions, isFunction, isTimeout } from '../options.js';
import { isLogger, type Logger, Reporter } from '../task/report.js';
import type { ShutdownReport } from './phases.js';
import { Shutdown } from './shutdown.js';
import { onSignals } from './signals.js';
import { type AnyHttpServer, StoppableServer } from './stoppable-server.js';

export interface ShutdownOptions {
  /** What `backgroundTasks()` returned: its tasks end after the last request. Those that do not are reported as abandoned. */
  tasks?: BackgroundTasksMiddleware | undefined;
  /** What `work()` resolved with. They end after the tasks. The array is read at the shutdown: workers may be added to it later. */
  workers?: readonly TaskWorker[] | undefined;
  /** It is closed after its workers. */
  engine?: TaskEngine | undefined;
  /**
   * For all of it, in ms, or Infinity. Default 9000: `docker stop` kills after 10 seconds, Kubernetes after 30. Each phase has a
   * share of it, and what it does not need is left to those behind it.
   */
  timeout?: number | undefined;
  /** Called last, for databases and whatever else the tasks use. May be asynchronous. */
  onClose?: ((report: ShutdownReport) => unknown) | undefined;
  /** Told of each error. Default `console`. */
  logger?: Logger | undefined;
}

export interface GracefulShutdown {
  /**
   * Begins it, or waits for the one that has begun. Afterwards the listeners are removed. It does not end the process, which ends
   * by itself if nothing else keeps it alive. Never rejects.
   */
  close(): Promise<ShutdownReport>;
  /** Removes all listeners: signals have their default effect again. Does not stop a shutdown that has begun. */
  uninstall(): void;
}

/**
 * Shuts the process down at SIGTERM, SIGINT, SIGQUIT, SIGHUP and SIGUSR2, at the message `shutdown` of PM2, and after an error
 * that nobody caught: it stops listening and ends each connection after its last answer, lets the tasks end, then closes workers
 * and engine, and calls `onClose`. The process exits with 0, or with 1 if an error began it, if something failed, or if an answer
 * or a task was given up. A second signal ends it at once, with 1.
 *
 * Call it once in a process, when the server has been made. `null` stands for a process without a server, such as one that only
 * works. The package close-with-grace has to be installed.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid or unknown options, and if `server` is not a server.
 * @example
 * const server = app.listen(3000);
 * gracefulShutdown(server, { tasks });
 */
export function gracefulShutdown(server: AnyHttpServer | null, options: ShutdownOptions = {}): GracefulShutdown {
  checkServer(server);
  checkOptions('gracefulShutdown()', options, optionChecks);
  const { tasks, workers, engine, timeout = defaultTimeout, onClose } = options;
  const stoppable = server === null ? undefined : new StoppableServer(server);
  const reporter = new Reporter(options.logger, undefined);
  const shutdown = new Shutdown({ server: stoppable, tasks, workers, engine, onClose }, timeout, reporter);

  // It brings the errors that nobody caught, and exits. Phases and signals are our own.
  const grace = closeWithGrace(
    {
      delay: false,
      logger: false,
      skip: skippedEvents,
      onSecondError: (error) => shutdown.logLoss(error, 'A second error ends the process at once'),
    },
    async (cause) => {
      process.off('message', onMessage);
      await ('err' in cause ? shutdown.runAfter(cause.err) : shutdown.run());
      // close-with-grace exits with 1 for a rejection. For an error that is undefined it would exit with 0.
      if (!shutdown.isClean) throw new Error('the shutdown was not clean');
    },
  );
  const removeSignals = onSignals(
    (signal) => {
      shutdown.report.signal = signal;
      grace.close();
    },
    (signal) => {
      shutdown.logLoss(signal, 'A second signal ends the process at once');
      process.exit(1);
    },
  );
  const onMessage = (message: unknown): void => {
    if (message === 'shutdown') grace.close();
  };
  const uninstall = (): void => {
    grace.uninstall();
    removeSignals();
    process.off('message', onMessage);
    stoppable?.release();
  };
  process.on('message', onMessage);
  // A listener for messages keeps a child process alive. One whose server is gone may end.
  server?.once('close', () => process.off('message', onMessage));

  return {
    uninstall,
    async close() {
      await shutdown.run();
      uninstall();
      return shutdown.report;
    },
  };
}

/** In ms. With some room under the 10 seconds of `docker stop`. */
const defaultTimeout = 9000;

/** Signals are our own, and a process that ends by itself keeps its exit code. */
// biome-ignore format: a line for the signals
const skippedEvents: closeWithGrace.AllEvents[] = [
  'SIGHUP', 'SIGINT', 'SIGQUIT', 'SIGILL', 'SIGTRAP', 'SIGABRT', 'SIGBUS', 'SIGFPE', 'SIGSEGV', 'SIGUSR2', 'SIGTERM',
  'beforeExit',
];

const optionChecks: Checks<ShutdownOptions> = {
  tasks: isMiddleware,
  workers: areWorkers,
  engine: isEngine,
  timeout: isTimeout,
  onClose: isFunction,
  logger: isLogger,
};

/** @throws BackgroundTasksError `ERR_INVALID_OPTION`. */
function checkServer(server: unknown): void {
  if (server === null || server instanceof Server) return;
  const message = `gracefulShutdown(): the first argument must be a server, such as app.listen() returns, or null, not ${inspectShort(server)}`;
  throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
}
