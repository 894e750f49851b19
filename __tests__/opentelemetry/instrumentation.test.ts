// The instrumentation, with OpenTelemetry's own SDK in this process.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { diag, SpanKind, SpanStatusCode, trace } from '@opentelemetry/api';
import { registerInstrumentations } from '@opentelemetry/instrumentation';
import express from 'express';
import { backgroundTasks, currentTask, NonRetryableError, task } from '../../lib/index';
import { BackgroundTasksInstrumentation, type InstrumentationConfig } from '../../lib/opentelemetry/index';
import { name, version } from '../../lib/opentelemetry/version';
import { type MemoryEngine, memory } from '../../lib/testing/index';
import { deferred } from '../fixtures/deferred';
import { hostileErrors } from '../fixtures/hostile';
import { serve } from '../fixtures/serve';
import { makeSdk, type Sdk, startSdk } from './fixtures/sdk';

const { version: packageVersion, name: packageName }: { version: string; name: string } = require('../../package.json');

let sdk: Sdk;
let engine: MemoryEngine;
let instrumentation: BackgroundTasksInstrumentation;

function instrument(config?: InstrumentationConfig): BackgroundTasksInstrumentation {
  instrumentation = new BackgroundTasksInstrumentation(config);
  return instrumentation;
}

beforeEach(() => {
  sdk = startSdk();
  engine = memory();
});

afterEach(async () => {
  instrumentation.disable();
  await engine.close();
  await sdk.shutdown();
});

/** What the instrumentation of HTTP does: the handlers run in the span of their request. */
function inServerSpan<T>(fn: () => T): T {
  return trace.getTracer('http').startActiveSpan('POST /orders', { kind: SpanKind.SERVER }, (span) => {
    try {
      return fn();
    } finally {
      span.end();
    }
  });
}

function inSpan<T>(title: string, fn: () => T): T {
  return trace.getTracer('test').startActiveSpan(title, (span) => {
    try {
      return fn();
    } finally {
      span.end();
    }
  });
}

const parentOf = (title: string): string | undefined => sdk.span(title).parentSpanContext?.spanId;
const idOf = (title: string): string => sdk.span(title).spanContext().spanId;
const traceOf = (title: string): string => sdk.span(title).spanContext().traceId;

describe('a task after the response', () => {
  it('is a child of the span that was active at its add, and the parent of the spans in it', async () => {
    instrument();
    const tasks = backgroundTasks();
    const app = express();
    app.use(tasks);
    let id = '';
    app.post('/orders', (_req, res) => {
      inServerSpan(() => {
        id = res.locals.backgroundTasks.add(async function mail() {
          await Promise.resolve();
          inSpan('smtp', () => {});
        }).id;
      });
      res.end();
    });
    const { url } = await serve(app);
    await fetch(`${url}/orders`, { method: 'POST' });
    await tasks.idle();
    expect(parentOf('task mail')).toBe(idOf('POST /orders'));
    expect(parentOf('smtp')).toBe(idOf('task mail'));
    expect(sdk.span('task mail')).toMatchObject({
      kind: SpanKind.INTERNAL,
      attributes: { 'background_task.name': 'mail', 'background_task.id': id, 'background_task.attempt': 1 },
      status: { code: SpanStatusCode.UNSET },
    });
  });

  it('has a span for each attempt, with the error of one that fails', async () => {
    instrument();
    const tasks = backgroundTasks({ retries: { limit: 1, minDelay: 1 }, onError: () => {} });
    const app = express();
    app.use(tasks);
    app.post('/orders', (_req, res) => {
      res.locals.backgroundTasks.add(function mail() {
        if (currentTask()?.attempt === 1) throw new TypeError('no such address');
      });
      res.end();
    });
    const { url } = await serve(app);
    await fetch(`${url}/orders`, { method: 'POST' });
    await tasks.idle();
    const [first, second] = sdk.spans();
    expect(first).toMatchObject({
      name: 'task mail',
      status: { code: SpanStatusCode.ERROR, message: 'no such address' },
      attributes: { 'background_task.attempt': 1, 'error.type': 'TypeError' },
      events: [
        { name: 'exception', attributes: { 'exception.type': 'TypeError', 'exception.message': 'no such address' } },
      ],
    });
    expect(second).toMatchObject({
      status: { code: SpanStatusCode.UNSET },
      attributes: { 'background_task.attempt': 2 },
    });
  });
});

describe('a stored task', () => {
  const mail = task('mail', async (_to: string) => {
    inSpan('smtp', () => {});
  });

  it('has a PRODUCER span for enqueue and, as its child, a CONSUMER span for each attempt', async () => {
    instrument();
    const { id } = await inServerSpan(() => engine.enqueue(mail, 'ada@example.com'));
    await engine.drain([mail]);
    expect(parentOf('enqueue mail')).toBe(idOf('POST /orders'));
    expect(parentOf('process mail')).toBe(idOf('enqueue mail'));
    expect(parentOf('smtp')).toBe(idOf('process mail'));
    expect(traceOf('smtp')).toBe(traceOf('POST /orders'));
    expect(sdk.span('enqueue mail')).toMatchObject({
      kind: SpanKind.PRODUCER,
      attributes: {
        'background_task.name': 'mail',
        'messaging.system': 'memory',
        'messaging.destination.name': 'mail',
        'messaging.operation.name': 'enqueue',
        'messaging.operation.type': 'send',
        'messaging.message.id': id,
      },
    });
    expect(sdk.span('process mail')).toMatchObject({
      kind: SpanKind.CONSUMER,
      attributes: {
        'background_task.name': 'mail',
        'background_task.id': id,
        'background_task.attempt': 1,
        'messaging.system': 'memory',
        'messaging.destination.name': 'mail',
        'messaging.operation.name': 'process',
        'messaging.operation.type': 'process',
        'messaging.message.id': id,
      },
    });
  });

  it('with links: true begins a trace of its own that has a link to the enqueue', async () => {
    instrument({ links: true });
    await inServerSpan(() => engine.enqueue(mail, 'a'));
    await engine.drain([mail]);
    expect(parentOf('process mail')).toBeUndefined();
    expect(traceOf('process mail')).not.toBe(traceOf('enqueue mail'));
    expect(parentOf('smtp')).toBe(idOf('process mail'));
    expect(sdk.span('process mail').links.map((link) => link.context.spanId)).toEqual([idOf('enqueue mail')]);
  });

  it.each([{}, { links: true }])('that was enqueued without the instrumentation begins a trace: %p', async (config) => {
    await engine.enqueue(mail, 'a');
    instrument(config);
    await engine.drain([mail]);
    expect(parentOf('process mail')).toBeUndefined();
    expect(sdk.span('process mail').links).toEqual([]);
  });

  it('marks the span of an enqueue that failed', async () => {
    instrument();
    await engine.close();
    await expect(engine.enqueue(mail, 'a')).rejects.toThrow();
    expect(sdk.span('enqueue mail')).toMatchObject({
      status: { code: SpanStatusCode.ERROR },
      attributes: { 'error.type': 'ERR_ENGINE_UNAVAILABLE' },
    });
  });

  it('names the task that has the key already', async () => {
    instrument();
    const { id } = await engine.enqueue(mail.with({ key: 'k' }), 'a');
    sdk.reset();
    await engine.enqueue(mail.with({ key: 'k' }), 'b');
    expect(sdk.span('enqueue mail').attributes['messaging.message.id']).toBe(id);
  });

  it('takes whatever is thrown', async () => {
    instrument();
    const failing = task('failing', () => {
      throw null;
    });
    await engine.enqueue(failing);
    await engine.drain([failing], { onError: () => {} });
    expect(sdk.span('process failing')).toMatchObject({
      status: { code: SpanStatusCode.ERROR, message: 'null' },
      attributes: { 'error.type': 'Error' },
    });
  });

  it.each(Object.entries(hostileErrors))('ends the span of a task that fails with %s', async (_title, make) => {
    instrument();
    const failing = task('failing', () => {
      throw make();
    });
    await engine.enqueue(failing);
    await engine.drain([failing], { onError: () => {} });
    expect(sdk.span('process failing').status.code).toBe(SpanStatusCode.ERROR);
  });

  it("reports what the SDK throws to OpenTelemetry's own logger, and to nobody else", async () => {
    const refuses = new Error('no spans today');
    const error = jest.fn();
    diag.setLogger({ error, warn() {}, info() {}, debug() {}, verbose() {} });
    instrument().setTracerProvider({
      getTracer: () => ({
        startSpan: () => {
          throw refuses;
        },
        startActiveSpan: () => {
          throw refuses;
        },
      }),
    });
    const run = jest.fn();
    const works = task('works', run);
    await engine.enqueue(works);
    await engine.drain([works]);
    expect(run).toHaveBeenCalledTimes(1);
    expect(error).toHaveBeenCalledWith(expect.stringContaining('a span or a metric was lost'), refuses);
    diag.disable();
  });

  it('keeps the "wrap" of another subscriber', async () => {
    const calls: string[] = [];
    const listener = (message: unknown): void => {
      Object.assign(message as object, {
        wrap: (fn: () => unknown) => {
          calls.push('wrapped');
          return fn();
        },
      });
    };
    subscribe('tracing:express-background-tasks:task:start', listener);
    try {
      instrument();
      await engine.enqueue(mail, 'a');
      await engine.drain([mail]);
    } finally {
      unsubscribe('tracing:express-background-tasks:task:start', listener);
    }
    expect(calls).toEqual(['wrapped']);
    expect(parentOf('smtp')).toBe(idOf('process mail'));
  });
});

/** Runs until it is cancelled, by itself. */
const cancelled = task('cancelled', async () => {
  const { signal, id = '' } = currentTask() ?? {};
  await engine.cancel(id);
  await new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
});

describe('metrics', () => {
  it('measure attempts by task, verb and outcome, in seconds', async () => {
    instrument();
    const mail = task('mail', (_to: string) => {});
    const failing = task('failing', async () => {
      throw new NonRetryableError('no');
    });
    await engine.enqueueMany(mail, [['a'], ['b']]);
    await engine.enqueue(failing);
    await engine.enqueue(cancelled);
    await engine.drain([mail, failing, cancelled], { onError: () => {} });
    const points = await sdk.points('background_task.duration');
    const counts = points.map(({ attributes, value }) => [attributes, (value as { count: number }).count]);
    const of = (title: string, outcome: string): object => ({
      'background_task.name': title,
      'background_task.verb': 'enqueue',
      'background_task.outcome': outcome,
    });
    expect(counts).toEqual(
      expect.arrayContaining([
        [of('mail', 'succeeded'), 2],
        [of('failing', 'failed'), 1],
        [of('cancelled', 'cancelled'), 1],
      ]),
    );
    expect(sdk.span('process cancelled')).toMatchObject({
      status: { code: SpanStatusCode.UNSET },
      attributes: { 'background_task.outcome': 'cancelled' },
      events: [],
    });
    expect(await sdk.points('background_task.enqueued')).toEqual(
      expect.arrayContaining([
        expect.objectContaining({
          attributes: { 'background_task.name': 'mail', 'messaging.system': 'memory' },
          value: 2,
        }),
      ]),
    );
  });

  it('count what was not stored with its error', async () => {
    instrument();
    await engine.close();
    await engine.enqueue(task('mail', () => {})).catch(() => {});
    const [point] = await sdk.points('background_task.enqueued');
    expect(point?.attributes).toMatchObject({ 'error.type': 'ERR_ENGINE_UNAVAILABLE' });
  });

  it('show what is pending and runs in this process, and what the engine has', async () => {
    const tasks = backgroundTasks();
    instrument({ tasks, engine });
    const app = express();
    app.use(tasks);
    const gate = deferred();
    const begun = deferred();
    app.post('/', (_req, res) => {
      res.locals.backgroundTasks.add(() => {
        begun.resolve();
        return gate.promise;
      });
      res.locals.backgroundTasks.add(() => {});
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url, { method: 'POST' });
    await begun.promise;
    await engine.enqueue(task('now', () => {}));
    await engine.enqueue(task('later', { delay: 3_600_000 }));
    engine.advance(2000);
    const currentOf = async (metric: string): Promise<unknown> => (await sdk.points(metric))[0]?.value;
    expect(await currentOf('background_task.running')).toBe(1);
    expect(await currentOf('background_task.pending')).toBe(1);
    const depth = await sdk.points('background_task.queue.depth');
    expect(Object.fromEntries(depth.map(({ attributes, value }) => [String(attributes['state']), value]))).toEqual({
      due: 1,
      delayed: 1,
      running: 0,
      failed: 0,
    });
    expect(await currentOf('background_task.queue.oldest_due')).toEqual(expect.any(Number));
    gate.resolve();
    await tasks.idle();
    await engine.drain([task('now', () => {})]);
    expect(await currentOf('background_task.queue.oldest_due')).toBe(0);
  });

  it('go on without an engine that is away', async () => {
    instrument({ engine });
    await engine.close();
    expect(await sdk.points('background_task.queue.depth')).toEqual([]);
  });

  it('need neither tasks nor an engine', async () => {
    instrument();
    expect(await sdk.points('background_task.pending')).toEqual([]);
    expect(await sdk.points('background_task.queue.depth')).toEqual([]);
  });
});

describe('as registerInstrumentations() and NodeSDK use it', () => {
  it('has the name and the version of the package', () => {
    const { instrumentationName, instrumentationVersion } = instrument();
    expect([instrumentationName, instrumentationVersion]).toEqual([packageName, packageVersion]);
    expect([name, version]).toEqual([packageName, packageVersion]);
  });

  it('takes the providers that it is given, and is disabled when it is unregistered', async () => {
    const other = makeSdk();
    instrument({ enabled: false });
    expect(instrumentation.getConfig().enabled).toBe(false);
    const unregister = registerInstrumentations({
      instrumentations: [instrumentation],
      tracerProvider: other.tracerProvider,
      meterProvider: other.meterProvider,
    });
    const mail = task('mail', () => {});
    await engine.enqueue(mail);
    await engine.drain([mail]);
    expect(other.spans().map((span) => span.name)).toEqual(['enqueue mail', 'process mail']);
    expect(await other.points('background_task.duration')).toHaveLength(1);
    expect(sdk.spans()).toEqual([]);
    unregister();
    await engine.enqueue(mail);
    expect(other.spans()).toHaveLength(2);
    await other.shutdown();
  });

  it('goes on with its metrics when it gets another meter while it is enabled', async () => {
    const tasks = backgroundTasks();
    instrument({ tasks });
    const other = makeSdk();
    instrumentation.setMeterProvider(other.meterProvider);
    expect(await other.points('background_task.running')).toHaveLength(1);
    expect(await sdk.points('background_task.running')).toEqual([]);
    await other.shutdown();
  });

  it('may be enabled and disabled twice', async () => {
    instrument();
    instrumentation.enable();
    const mail = task('mail', () => {});
    await engine.enqueue(mail);
    expect(sdk.spans()).toHaveLength(1);
    instrumentation.disable();
    instrumentation.disable();
    await engine.enqueue(mail);
    expect(sdk.spans()).toHaveLength(1);
  });

  it('ends no span of what began before it was enabled', async () => {
    instrument({ enabled: false });
    const other = (): void => {}; // It makes the attempt a traced one.
    subscribe('tracing:express-background-tasks:task:start', other);
    const gate = deferred();
    const begun = deferred();
    const slow = task('slow', () => {
      begun.resolve();
      return gate.promise;
    });
    await engine.enqueue(slow);
    const drained = engine.drain([slow]);
    await begun.promise;
    instrumentation.enable();
    gate.resolve();
    await drained;
    expect(sdk.spans()).toEqual([]);
    expect(await sdk.points('background_task.duration')).toEqual([]);
    unsubscribe('tracing:express-background-tasks:task:start', other);
  });

  it.each([
    [{ links: 'yes' }, 'links'],
    [{ tasks: {} }, 'tasks'],
    [{ engine: {} }, 'engine'],
    [{ unknown: 1 }, 'unknown'],
  ])('refuses bad options: %p', (config, option) => {
    expect(() => new BackgroundTasksInstrumentation(config as InstrumentationConfig)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(option) }),
    );
  });

  it('replaces its configuration by setConfig()', () => {
    instrument({ links: true, engine });
    instrumentation.setConfig();
    expect(instrumentation.getConfig()).toEqual({ enabled: true, links: false, tasks: undefined, engine: undefined });
  });
});
