// The instrumentation as OpenTelemetry's NodeSDK and registerInstrumentations() take it. It has their shape without their base
// class, whose part is to patch modules: here two tracing channels tell all there is to know.

import { tracingChannel } from 'node:diagnostics_channel';
import { diag, type MeterProvider, metrics, type TracerProvider, trace } from '@opentelemetry/api';
import { isEngine, type TaskEngine } from '../engine/engine.js';
import type { EnqueueTrace } from '../engine/tracing.js';
import { type BackgroundTasksMiddleware, isMiddleware } from '../middleware.js';
import { checkOptions, isBoolean } from '../options.js';
import type { TaskTrace } from '../task/tracing.js';
import { Metrics } from './metrics.js';
import { Spans } from './spans.js';
import { name, version } from './version.js';

export interface InstrumentationConfig {
  /** Default true. */
  enabled?: boolean | undefined;
  /**
   * How an attempt in a worker is connected with its `enqueue`. False, the default: as a child, in one trace. True: in a trace
   * of its own with a link, for tasks that run hours later or that fan out to thousands.
   */
  links?: boolean | undefined;
  /** For the metrics of what is pending and runs in this process: what `backgroundTasks()` has returned. */
  tasks?: BackgroundTasksMiddleware | undefined;
  /** For the metrics of what is queued: an engine that can count its tasks. */
  engine?: TaskEngine | undefined;
}

/**
 * Makes spans and metrics of tasks. A task after a response is a child of the span that was active at its `add`, `enqueue` is a
 * span of kind PRODUCER, and each attempt in a worker one of kind CONSUMER.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
 * @example
 * const sdk = new NodeSDK({ instrumentations: [new HttpInstrumentation(), new BackgroundTasksInstrumentation()] });
 * @see https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/
 */
export class BackgroundTasksInstrumentation {
  readonly instrumentationName = name;
  readonly instrumentationVersion = version;
  #config: InstrumentationConfig & { enabled: boolean } = { enabled: false };
  #isEnabled = false;
  readonly #spans = new Spans(trace.getTracer(name, version));
  readonly #metrics = new Metrics(metrics.getMeter(name, version));

  constructor(config: InstrumentationConfig = {}) {
    this.setConfig(config);
    if (this.#config.enabled) this.enable();
  }

  /** The options that are in force. */
  getConfig(): InstrumentationConfig & { enabled: boolean } {
    return this.#config;
  }

  /** Replaces the whole configuration. @throws BackgroundTasksError `ERR_INVALID_OPTION`. */
  setConfig(config: InstrumentationConfig = {}): void {
    checkOptions('BackgroundTasksInstrumentation', config, {
      enabled: isBoolean,
      links: isBoolean,
      tasks: isMiddleware,
      engine: isEngine,
    });
    const { enabled = true, links = false, tasks, engine } = config;
    this.#config = { enabled, links, tasks, engine };
    this.#spans.links = links;
    this.#metrics.observe(tasks, engine);
  }

  setTracerProvider(provider: TracerProvider): void {
    this.#spans.tracer = provider.getTracer(name, version);
  }

  setMeterProvider(provider: MeterProvider): void {
    this.#metrics.setMeter(provider.getMeter(name, version));
  }

  /** Starts to listen to the tracing channels. The constructor does it, unless `enabled` is false. */
  enable(): void {
    if (this.#isEnabled) return;
    this.#isEnabled = true;
    attempts.subscribe(this.#attempts);
    enqueues.subscribe(this.#enqueues);
    this.#metrics.start();
  }

  /** Attempts that run go on without their spans. */
  disable(): void {
    if (!this.#isEnabled) return;
    this.#isEnabled = false;
    attempts.unsubscribe(this.#attempts);
    enqueues.unsubscribe(this.#enqueues);
    this.#metrics.stop();
  }

  readonly #attempts = {
    start: (attempt: TaskTrace): void => {
      safely(() => this.#metrics.begin(attempt));
      safely(() => this.#spans.beginAttempt(attempt));
    },
    end: (attempt: TaskTrace): void => {
      // Of an attempt that is awaited, asyncEnd follows.
      if ('result' in attempt || 'error' in attempt) this.#endAttempt(attempt);
    },
    asyncStart: ignore,
    asyncEnd: (attempt: TaskTrace): void => this.#endAttempt(attempt),
    error: ignore,
  };

  readonly #enqueues = {
    start: (enqueue: EnqueueTrace): void => safely(() => this.#spans.beginEnqueue(enqueue)),
    end: ignore,
    asyncStart: ignore,
    asyncEnd: (enqueue: EnqueueTrace): void => {
      safely(() => this.#spans.endEnqueue(enqueue));
      safely(() => this.#metrics.enqueued(enqueue));
    },
    error: ignore,
  };

  #endAttempt(attempt: TaskTrace): void {
    safely(() => this.#spans.end(attempt));
    safely(() => this.#metrics.end(attempt));
  }
}

const attempts = tracingChannel<unknown, TaskTrace>('express-background-tasks:task');
const enqueues = tracingChannel<unknown, EnqueueTrace>('express-background-tasks:enqueue');

function ignore(): void {}

/** What a subscriber of a channel throws ends the process. A propagator, a sampler or a processor of the SDK may throw. */
function safely(tell: () => void): void {
  try {
    tell();
  } catch (error) {
    diag.error(`${name}: a span or a metric was lost`, error);
  }
}
