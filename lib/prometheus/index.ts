// Figures for a scrape by Prometheus, on prom-client: the entry point express-background-tasks/prometheus.

export { type CollectOptions, collectTasks } from './collect-tasks.js';
