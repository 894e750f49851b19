// Runs the phases of a shutdown one behind the other. Each has its share of the time, so that the last ones get some as well.

import { clearTimeout, monotonicTime, setTimeout } from '../clock.js';
import { longestDelay } from '../options.js';

export type PhaseName = 'requests' | 'tasks' | 'workers' | 'engine' | 'onClose';

export interface ShutdownFailure {
  phase: PhaseName;
  error: unknown;
}

export interface Phase {
  readonly name: PhaseName;
  /** `limit`: how long it may take, in ms, or Infinity. */
  run(limit: number, fail: Fail): unknown;
}

/** A phase may fail more than once, and go on. */
export type Fail = (error: unknown) => void;

/** The weights of the phases. Those that a program does not have leave their time to the others. */
const shares: Record<PhaseName, number> = { requests: 2, tasks: 3, workers: 3, engine: 1, onClose: 1 };

/**
 * What ends by itself at a time limit (requests, tasks, workers) gets this part of its phase's time. The rest is for what follows
 * then: connections are cut off, tasks are reported or given back.
 */
export const ownPart = 0.9;

/**
 * Each phase has a moment at which it must be over. A phase that ends sooner leaves its time to those behind it. One that fails,
 * or is not over in time, does not stop them.
 */
export async function runPhases(
  phases: readonly Phase[],
  timeout: number,
  onFailure: (failure: ShutdownFailure) => void,
): Promise<void> {
  const startedAt = monotonicTime();
  const total = phases.reduce((sum, { name }) => sum + shares[name], 0);
  let share = 0;
  for (const phase of phases) {
    share += shares[phase.name];
    const due = startedAt + (timeout * share) / total;
    await runPhase(phase, Math.max(due - monotonicTime(), 0), (error) => onFailure({ phase: phase.name, error }));
  }
}

/** Never rejects. What fails when its time is over is still told. */
function runPhase(phase: Phase, limit: number, fail: Fail): Promise<void> {
  return new Promise((resolve) => {
    const stopTimer = startTimer(limit, () => {
      fail(new Error(`it was not over after ${Math.round(limit)} ms`));
      resolve();
    });
    const run = async (): Promise<unknown> => phase.run(limit, fail);
    void run()
      .catch(fail)
      .then(() => {
        stopTimer();
        resolve();
      });
  });
}

/** For a time that may be Infinity. Returns what stops the timer. */
export function startTimer(ms: number, callback: () => void): () => void {
  if (ms > longestDelay) return () => {};
  const timer = setTimeout(callback, ms);
  return () => clearTimeout(timer);
}
