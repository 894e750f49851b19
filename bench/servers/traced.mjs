// An Express server in a process of its own, with OpenTelemetry's SDK. Its argument says what is traced. It tells its CPU time when it
// is asked.

import { createRequire } from 'node:module';
import { AsyncLocalStorageContextManager } from '@opentelemetry/context-async-hooks';
import { registerInstrumentations } from '@opentelemetry/instrumentation';
import { HttpInstrumentation } from '@opentelemetry/instrumentation-http';
import { BatchSpanProcessor } from '@opentelemetry/sdk-trace-base';
import { NodeTracerProvider } from '@opentelemetry/sdk-trace-node';
import { BackgroundTasksInstrumentation } from 'express-background-tasks/opentelemetry';

const kind = process.argv[2];
const require = createRequire(import.meta.url);

// Spans are made and thrown away: what an exporter costs is its own affair.
const exporter = { export: (_spans, done) => done({ code: 0 }), shutdown: async () => {} };
new NodeTracerProvider({ spanProcessors: [new BatchSpanProcessor(exporter)] }).register({
  contextManager: new AsyncLocalStorageContextManager(),
});
const instrumentations = {
  nothing: [],
  http: [new HttpInstrumentation()],
  both: [new HttpInstrumentation(), new BackgroundTasksInstrumentation()],
};
for (const [name, list] of Object.entries(instrumentations)) {
  if (name !== kind) for (const instrumentation of list) instrumentation.disable();
}
registerInstrumentations({ instrumentations: instrumentations[kind] });

// Loaded now, since the instrumentation of HTTP patches what is loaded after it.
const { createServer } = require('node:http');
const { appOf } = await import('./app.mjs');
const server = createServer(appOf('one async task')).listen(0, '127.0.0.1', () => {
  process.send({ port: server.address().port });
});
process.on('message', () => {
  const { user, system } = process.cpuUsage();
  process.send({ cpu: user + system });
});
