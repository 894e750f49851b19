// The child logger of docs/monitoring.md: each line names the task, the attempt and the trace.

import { trace } from '@opentelemetry/api';
import pino from 'pino';
import { currentTask, task } from '../../lib/index';
import { BackgroundTasksInstrumentation } from '../../lib/opentelemetry/index';
import { memory } from '../../lib/testing/index';
import { startSdk } from './fixtures/sdk';

it('has the id, the name, the attempt and the trace of its task', async () => {
  const sdk = startSdk();
  const instrumentation = new BackgroundTasksInstrumentation();
  const engine = memory();
  const lines: string[] = [];
  const logger = pino({}, { write: (line) => lines.push(line) });
  const sendMail = task('send mail', async (to: string) => {
    const log = logger.child({ task: currentTask(), traceId: trace.getActiveSpan()?.spanContext().traceId });
    log.info({ to }, 'sending');
  });
  const { id } = await engine.enqueue(sendMail, 'ada@example.com');
  await engine.drain([sendMail]);
  expect(lines.map((line) => JSON.parse(line))).toEqual([
    expect.objectContaining({
      task: { id, name: 'send mail', attempt: 1 },
      traceId: sdk.span('process send mail').spanContext().traceId,
      to: 'ada@example.com',
      msg: 'sending',
    }),
  ]);
  instrumentation.disable();
  await engine.close();
  await sdk.shutdown();
});
