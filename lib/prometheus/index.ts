/**
 * Figures for a scrape by Prometheus, on prom-client.
 *
 * @module prometheus
 */

export { type CollectOptions, collectTasks } from './collect-tasks.js';
