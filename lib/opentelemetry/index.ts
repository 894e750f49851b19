// Spans and metrics by way of @opentelemetry/api: the entry point express-background-tasks/opentelemetry.

export { BackgroundTasksInstrumentation, type InstrumentationConfig } from './instrumentation.js';
