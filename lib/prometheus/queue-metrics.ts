// What an engine counts: the tasks in its store.

import { clearTimeout, setTimeout, wallClockTime } from '../clock.js';
import type { EngineStats, TaskEngine } from '../engine/engine.js';
import { hasCode } from '../errors.js';
import { gauge, type Named } from './metric.js';

/** For how long a scrape waits for the figures, in ms. */
const patience = 25;

/** In a cluster each of them counts the same store. */
const everyProcessSaysTheSame = 'max';

export function queueMetrics(engine: TaskEngine | undefined): Named[] {
  if (engine === undefined) return [];
  const latest = new LatestStats(engine);
  return [
    gauge(
      'background_tasks_queue_up',
      'Whether the engine has counted its tasks when it was last asked.',
      [],
      async (metric) => {
        await latest.look();
        metric.remove();
        if (!latest.isUnable) metric.set(latest.stats === undefined ? 0 : 1);
      },
      everyProcessSaysTheSame,
    ),
    gauge(
      'background_tasks_queue_tasks',
      'Tasks of the engine.',
      ['state'],
      async (metric) => {
        await latest.look();
        metric.reset();
        if (latest.stats === undefined) return;
        const { due, queued, running, failed } = latest.stats;
        metric.set({ state: 'due' }, due);
        metric.set({ state: 'delayed' }, queued - due);
        metric.set({ state: 'running' }, running);
        metric.set({ state: 'failed' }, failed);
      },
      everyProcessSaysTheSame,
    ),
    gauge(
      'background_tasks_queue_oldest_due_seconds',
      'For how long the oldest task that may run has waited.',
      [],
      async (metric) => {
        await latest.look();
        metric.remove();
        if (latest.stats === undefined) return;
        const { oldestDueAt } = latest.stats;
        metric.set(oldestDueAt === undefined ? 0 : Math.max(0, wallClockTime() - oldestDueAt.getTime()) / 1000);
      },
      everyProcessSaysTheSame,
    ),
  ];
}

class LatestStats {
  /** Undefined where the engine could not tell. */
  stats: EngineStats | undefined = undefined;
  /** An engine that hands its tasks over, such as Celery's, cannot count them. */
  isUnable = false;
  readonly #engine: TaskEngine;
  #looking: Promise<void> | undefined = undefined;

  constructor(engine: TaskEngine) {
    this.#engine = engine;
  }

  /** Resolves once the engine has answered, or after a while. Calls meanwhile share one question. */
  async look(): Promise<void> {
    this.#looking ??= this.#ask();
    let timer: NodeJS.Timeout | undefined;
    const late = new Promise<void>((resolve) => {
      timer = setTimeout(resolve, patience);
    });
    await Promise.race([this.#looking, late]);
    clearTimeout(timer);
  }

  async #ask(): Promise<void> {
    try {
      this.stats = await this.#engine.stats();
    } catch (error) {
      this.stats = undefined; // The scrape goes on: background_tasks_queue_up tells.
      if (!this.isUnable && hasCode(error, 'ERR_INVALID_OPTION')) {
        this.isUnable = true;
        process.emitWarning(
          `collectTasks(): there are no figures of the queue: ${error.message}`,
          'BackgroundTasksWarning',
        );
      }
    } finally {
      this.#looking = undefined;
    }
  }
}
