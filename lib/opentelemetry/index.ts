/**
 * Spans and metrics, by way of @opentelemetry/api.
 *
 * @module opentelemetry
 */

export { BackgroundTasksInstrumentation, type InstrumentationConfig } from './instrumentation.js';
