// collectTasks(): registers the metrics, and removes them again.

import type { Registry } from 'prom-client';
import { isEngine, type TaskEngine } from '../engine/engine.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isObject } from '../foreign-value.js';
import { type BackgroundTasksMiddleware, isMiddleware } from '../middleware.js';
import { type Checks, checkOptions } from '../options.js';
import { AttemptMetrics } from './attempt-metrics.js';
import { queueMetrics } from './queue-metrics.js';
import { responseMetrics } from './response-metrics.js';

export interface CollectOptions {
  /** What `backgroundTasks()` has returned: for what is pending, runs and has ended in this process. */
  tasks?: BackgroundTasksMiddleware | undefined;
  /** For what is queued: an engine that can count its tasks. */
  engine?: TaskEngine | undefined;
}

/**
 * Registers metrics of tasks with a registry of prom-client. How long attempts take and what is enqueued is measured for all
 * engines of this process, also without options. A scrape waits for at most 25 ms until the engine has counted its tasks: if
 * that takes longer, it gets the figures of the look before.
 *
 * Returns a function that removes them.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options, if `registry` is not a registry, and if it has these
 * metrics already.
 * @example
 * collectTasks(register, { tasks, engine });
 */
export function collectTasks(registry: Registry, options: CollectOptions = {}): () => void {
  if (!isRegistry(registry)) {
    throw invalid(`the first argument must be a registry of prom-client, not ${inspectShort(registry)}`);
  }
  checkOptions('collectTasks()', options, checks);
  const { tasks, engine } = options;
  const attempts = new AttemptMetrics();
  const metrics = [...attempts.metrics, ...responseMetrics(tasks), ...queueMetrics(engine)];
  if (metrics.some(({ name }) => registry.getSingleMetric(name) !== undefined)) {
    throw invalid('the registry has the metrics already');
  }
  for (const { metric } of metrics) registry.registerMetric(metric);
  attempts.start();
  return () => {
    attempts.stop();
    for (const { name } of metrics) registry.removeSingleMetric(name);
  };
}

const checks: Checks<CollectOptions> = { tasks: isMiddleware, engine: isEngine };

function isRegistry(value: unknown): boolean {
  return isObject(value) && typeof Reflect.get(value, 'registerMetric') === 'function';
}

function invalid(reason: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `collectTasks(): ${reason}`);
}
