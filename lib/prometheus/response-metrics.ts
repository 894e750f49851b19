// What backgroundTasks() counts by itself: the tasks after responses of this process.

import type { BackgroundTasksMiddleware } from '../middleware.js';
import { counter, gauge, type Named } from './metric.js';

const ends = ['succeeded', 'failed', 'skipped', 'cancelled', 'abandoned'] as const;

export function responseMetrics(tasks: BackgroundTasksMiddleware | undefined): Named[] {
  if (tasks === undefined) return [];
  return [
    gauge('background_tasks_pending', 'Tasks added in this process that have not begun.', [], (metric) =>
      metric.set(tasks.stats.pending),
    ),
    gauge('background_tasks_running', 'Tasks added in this process that run.', [], (metric) =>
      metric.set(tasks.stats.running),
    ),
    counter('background_tasks_ended_total', 'Tasks added in this process that are over.', ['status'], (metric) => {
      const { stats } = tasks;
      metric.reset();
      for (const status of ends) metric.inc({ status }, stats[status]);
    }),
  ];
}
