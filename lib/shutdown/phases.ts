// The phases of a shutdown and their order: nobody uses any more what is closed. Requests add tasks, tasks enqueue and use
// databases, workers use their engine.

import type { TaskEngine, TaskWorker } from '../engine/engine.js';
import type { BackgroundTasksMiddleware } from '../middleware.js';
import type { CloseReport } from '../response/closing.js';
import { ownPart, type Phase, type ShutdownFailure } from './run-phases.js';
import type { StoppableServer } from './stoppable-server.js';

export interface ShutdownReport {
  /** The signal that began it, if it was one. */
  signal?: NodeJS.Signals;
  /** What nobody caught, if that began it. It may be any value. */
  error?: unknown;
  /** How many answers were cut off, since they were not whole in time. */
  unanswered: number;
  /** Of `tasks.close()`: how many tasks ended, and which were given up. Absent without `tasks`. */
  tasks?: CloseReport;
  /** What went wrong, in which phase. Each was logged. */
  failures: ShutdownFailure[];
}

/** What is closed, as far as a program has it. */
export interface Closed {
  server: StoppableServer | undefined;
  tasks: BackgroundTasksMiddleware | undefined;
  workers: readonly TaskWorker[] | undefined;
  engine: TaskEngine | undefined;
  onClose: ((report: ShutdownReport) => unknown) | undefined;
}

/** Those that there are, in their order. */
export function phasesOf({ server, tasks, workers = [], engine, onClose }: Closed, report: ShutdownReport): Phase[] {
  const phases: Phase[] = [];
  if (server !== undefined) {
    phases.push({
      name: 'requests',
      async run(limit) {
        report.unanswered = await server.stop(limit * ownPart);
        if (report.unanswered > 0)
          throw new Error(`requests that were cut off before they were answered: ${report.unanswered}`);
      },
    });
  }
  if (tasks !== undefined) {
    phases.push({
      name: 'tasks',
      async run(limit) {
        report.tasks = await tasks.close({ timeout: Math.floor(limit * ownPart) });
      },
    });
  }
  if (workers.length > 0) {
    phases.push({
      name: 'workers',
      run: (limit, fail) =>
        Promise.all(workers.map((worker) => worker.close({ timeout: Math.floor(limit * ownPart) }).catch(fail))),
    });
  }
  if (engine !== undefined) phases.push({ name: 'engine', run: () => engine.close() });
  if (onClose !== undefined) phases.push({ name: 'onClose', run: () => onClose(report) });
  return phases;
}
