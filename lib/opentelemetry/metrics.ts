// The metrics: how long attempts take, what was enqueued, what is pending, runs and is queued.

import type { BatchObservableResult, Counter, Histogram, Meter, Observable } from '@opentelemetry/api';
import { monotonicTime, wallClockTime } from '../clock.js';
import type { TaskEngine } from '../engine/engine.js';
import type { EnqueueTrace } from '../engine/tracing.js';
import type { BackgroundTasksMiddleware } from '../middleware.js';
import type { TaskTrace } from '../task/tracing.js';
import { countedBy, failureOf, measuredBy } from './attributes.js';

/** Seconds, from a mail that is handed over to a report that is computed. */
const buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800];

export class Metrics {
  #instruments: Instruments;
  #tasks: BackgroundTasksMiddleware | undefined = undefined;
  #engine: TaskEngine | undefined = undefined;
  #isStarted = false;
  readonly #begun = new WeakMap<TaskTrace, number>();

  constructor(meter: Meter) {
    this.#instruments = new Instruments(meter);
  }

  setMeter(meter: Meter): void {
    const wasStarted = this.#isStarted;
    this.stop();
    this.#instruments = new Instruments(meter);
    if (wasStarted) this.start();
  }

  observe(tasks: BackgroundTasksMiddleware | undefined, engine: TaskEngine | undefined): void {
    this.#tasks = tasks;
    this.#engine = engine;
  }

  start(): void {
    this.#isStarted = true;
    const { meter, here, queued } = this.#instruments;
    meter.addBatchObservableCallback(this.#look, here);
    meter.addBatchObservableCallback(this.#lookIntoQueue, queued);
  }

  stop(): void {
    this.#isStarted = false;
    const { meter, here, queued } = this.#instruments;
    meter.removeBatchObservableCallback(this.#look, here);
    meter.removeBatchObservableCallback(this.#lookIntoQueue, queued);
  }

  begin(attempt: TaskTrace): void {
    this.#begun.set(attempt, monotonicTime());
  }

  end(attempt: TaskTrace): void {
    const begun = this.#begun.get(attempt);
    if (begun === undefined) return; // It began before the instrumentation was enabled.
    this.#instruments.duration.record((monotonicTime() - begun) / 1000, measuredBy(attempt));
  }

  enqueued(enqueue: EnqueueTrace): void {
    const errorType = 'error' in enqueue ? failureOf(enqueue.error).type : undefined;
    this.#instruments.enqueued.add(1, countedBy(enqueue, errorType));
  }

  readonly #look = (result: BatchObservableResult): void => {
    if (this.#tasks === undefined) return;
    const { pending, running } = this.#tasks.stats;
    result.observe(this.#instruments.pending, pending);
    result.observe(this.#instruments.running, running);
  };

  readonly #lookIntoQueue = async (result: BatchObservableResult): Promise<void> => {
    const { depth, oldestDue } = this.#instruments;
    try {
      const stats = await this.#engine?.stats();
      if (stats === undefined) return;
      const { due, queued, running, failed, oldestDueAt } = stats;
      result.observe(depth, due, { state: 'due' });
      result.observe(depth, queued - due, { state: 'delayed' });
      result.observe(depth, running, { state: 'running' });
      result.observe(depth, failed, { state: 'failed' });
      const age = oldestDueAt === undefined ? 0 : wallClockTime() - oldestDueAt.getTime();
      result.observe(oldestDue, Math.max(0, age) / 1000);
    } catch {
      // Its store is away. The other metrics go on, and an alert on absent ones tells.
    }
  };
}

class Instruments {
  readonly duration: Histogram;
  readonly enqueued: Counter;
  readonly pending: Observable;
  readonly running: Observable;
  readonly depth: Observable;
  readonly oldestDue: Observable;

  constructor(readonly meter: Meter) {
    this.duration = meter.createHistogram('background_task.duration', {
      description: 'How long attempts of tasks take',
      unit: 's',
      advice: { explicitBucketBoundaries: buckets },
    });
    this.enqueued = meter.createCounter('background_task.enqueued', {
      description: 'Tasks handed over to an engine, with error.type those that were not stored',
      unit: '{task}',
    });
    const gauge = (name: string, description: string, unit = '{task}'): Observable =>
      meter.createObservableGauge(name, { description, unit });
    this.pending = gauge('background_task.pending', 'Tasks added in this process that have not begun');
    this.running = gauge('background_task.running', 'Tasks added in this process that run');
    this.depth = gauge('background_task.queue.depth', 'Tasks of the engine by state');
    this.oldestDue = gauge('background_task.queue.oldest_due', 'How long the oldest task that may run has waited', 's');
  }

  get here(): Observable[] {
    return [this.pending, this.running];
  }

  get queued(): Observable[] {
    return [this.depth, this.oldestDue];
  }
}
