// taskHealth(): the route that a probe asks whether stored tasks are worked.

import type { RequestHandler } from 'express';
import { wallClockTime } from '../clock.js';
import { areWorkers, type EngineStats, isEngine, type TaskEngine, type TaskWorker } from '../engine/engine.js';
import { BackgroundTasksError, hasCode } from '../errors.js';
import { type Checks, checkOptions, isDelay } from '../options.js';

export interface HealthOptions {
  /** Its store has to answer. */
  engine?: TaskEngine | undefined;
  /** Each of them has to look for tasks. The array is read at each request: workers may be added to it later. */
  workers?: readonly TaskWorker[] | undefined;
  /** For how long a task that may run may wait for a worker, in ms. Needs `engine`. Default: no limit. */
  maxLag?: number | undefined;
}

/**
 * Returns a handler for a readiness or liveness probe. It answers with 200 or 503 and `{ healthy, reasons }`. A store that is
 * out of reach, a worker that no longer looks for tasks, and tasks that wait for longer than `maxLag` are reasons. How long
 * tasks run is none.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid options.
 * @example
 * app.get('/health', taskHealth({ engine, workers: [worker], maxLag: 60_000 }));
 */
export function taskHealth(options: HealthOptions): RequestHandler {
  checkOptions('taskHealth()', options, checks);
  const { engine, workers = [], maxLag = Number.POSITIVE_INFINITY } = options;
  if (engine === undefined && (options.workers === undefined || options.maxLag !== undefined)) {
    const message = `taskHealth(): ${options.maxLag === undefined ? 'give it "engine" or "workers"' : '"maxLag" needs "engine"'}`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
  }
  /** Probes that come at the same time share one look at the store. */
  let looking: Promise<string | undefined> | undefined;

  return async (_req, res, next) => {
    try {
      looking ??=
        engine &&
        lookAt(engine, maxLag).finally(() => {
          looking = undefined;
        });
      const reasons = workers
        .map((worker) => worker.health())
        .filter((health) => !health.healthy)
        .map((health) => health.reason ?? 'a worker is not healthy');
      const reason = await looking;
      if (reason !== undefined) reasons.unshift(reason);
      if (res.headersSent) return;
      const healthy = reasons.length === 0;
      res.set('Cache-Control', 'no-store');
      res.status(healthy ? 200 : 503).json({ healthy, reasons: [...new Set(reasons)] });
    } catch (error) {
      next(error); // Express 4 does not await a handler.
    }
  };
}

/** Returns what is wrong. */
async function lookAt(engine: TaskEngine, maxLag: number): Promise<string | undefined> {
  try {
    const { oldestDueAt } = await statsOf(engine, maxLag);
    if (oldestDueAt === undefined) return undefined;
    const lag = wallClockTime() - oldestDueAt.getTime();
    if (lag <= maxLag) return undefined;
    return `tasks have waited for a worker since ${oldestDueAt.toISOString()}, for ${Math.round(lag / 1000)} seconds`;
  } catch (error) {
    return error instanceof Error ? error.message : 'the store does not answer';
  }
}

/** An engine that cannot count can at least tell whether its store answers. */
async function statsOf(engine: TaskEngine, maxLag: number): Promise<Pick<EngineStats, 'oldestDueAt'>> {
  try {
    return await engine.stats();
  } catch (error) {
    if (!hasCode(error, 'ERR_INVALID_OPTION') || maxLag !== Number.POSITIVE_INFINITY) throw error;
    await engine.ready();
    return {};
  }
}

const checks: Checks<HealthOptions> = { engine: isEngine, workers: areWorkers, maxLag: isDelay };
