// What the tracing channels tell: how long attempts take, and what was enqueued.

import { tracingChannel } from 'node:diagnostics_channel';
import { monotonicTime } from '../clock.js';
import type { EnqueueTrace } from '../engine/tracing.js';
import { outcomeOf, type TaskTrace } from '../task/tracing.js';
import { counter, histogram, type Named } from './metric.js';

/** Each label makes a time series, and a program may make up names without end. */
const mostNames = 200;

/** Seconds, from a mail that is handed over to a report that is computed. */
const buckets = [0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1, 5, 10, 30, 60, 300, 1800];

export class AttemptMetrics {
  readonly #duration = histogram(
    'background_task_duration_seconds',
    'How long attempts of tasks take, after a response (add) and in a worker (enqueue).',
    ['task', 'verb', 'outcome'],
    buckets,
  );
  readonly #enqueued = counter('background_tasks_enqueued_total', 'Tasks handed over to an engine.', [
    'task',
    'engine',
  ]);
  readonly #refused = counter('background_tasks_enqueue_errors_total', 'Tasks that an engine did not store.', [
    'task',
    'engine',
  ]);
  readonly #names = new Set<string>();
  readonly #begun = new WeakMap<TaskTrace, number>();

  get metrics(): Named[] {
    return [this.#duration, this.#enqueued, this.#refused];
  }

  start(): void {
    attempts.subscribe(this.#attempts);
    enqueues.subscribe(this.#enqueues);
  }

  stop(): void {
    attempts.unsubscribe(this.#attempts);
    enqueues.unsubscribe(this.#enqueues);
  }

  readonly #attempts = {
    start: (attempt: TaskTrace): void => {
      this.#begun.set(attempt, monotonicTime());
    },
    end: (attempt: TaskTrace): void => {
      // Of an attempt that is awaited, asyncEnd follows.
      if ('result' in attempt || 'error' in attempt) this.#ended(attempt);
    },
    asyncStart: ignore,
    asyncEnd: (attempt: TaskTrace): void => this.#ended(attempt),
    error: ignore,
  };

  readonly #enqueues = {
    start: ignore,
    end: ignore,
    asyncStart: ignore,
    asyncEnd: (enqueue: EnqueueTrace): void => {
      const { metric } = 'error' in enqueue ? this.#refused : this.#enqueued;
      metric.inc({ task: this.#labelOf(enqueue.task.name), engine: enqueue.engine });
    },
    error: ignore,
  };

  #ended(attempt: TaskTrace): void {
    const begun = this.#begun.get(attempt);
    if (begun === undefined) return; // It began before start().
    const verb = attempt.engine === undefined ? 'add' : 'enqueue';
    const labels = { task: this.#labelOf(attempt.task.name), verb, outcome: outcomeOf(attempt) };
    this.#duration.metric.observe(labels, (monotonicTime() - begun) / 1000);
  }

  /** The first so many names, and one for all others. */
  #labelOf(name: string): string {
    if (this.#names.size < mostNames) this.#names.add(name);
    return this.#names.has(name) ? name : 'other';
  }
}

const attempts = tracingChannel<unknown, TaskTrace>('express-background-tasks:task');
const enqueues = tracingChannel<unknown, EnqueueTrace>('express-background-tasks:enqueue');

function ignore(): void {}
