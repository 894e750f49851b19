// The spans of attempts and of enqueue.

import {
  type Context,
  context,
  defaultTextMapSetter,
  propagation,
  ROOT_CONTEXT,
  type Span,
  SpanKind,
  SpanStatusCode,
  type Tracer,
  trace,
} from '@opentelemetry/api';
import type { EnqueueTrace } from '../engine/tracing.js';
import { outcomeOf, type TaskTrace } from '../task/tracing.js';
import type { Wrap } from '../task/wrap.js';
import { attributesOf, cancelledAttributes, enqueueAttributesOf, failureOf } from './attributes.js';

export class Spans {
  tracer: Tracer;
  links = false;
  readonly #open = new WeakMap<TaskTrace | EnqueueTrace, Span>();

  constructor(tracer: Tracer) {
    this.tracer = tracer;
  }

  /** After a response its parent is the span that was active at the `add`, whose context the task runs in. */
  beginAttempt(attempt: TaskTrace): void {
    const { task, message } = attempt;
    const attributes = attributesOf(attempt);
    if (message === undefined) {
      const span = this.tracer.startSpan(`task ${task.name}`, { kind: SpanKind.INTERNAL, attributes });
      this.#begin(attempt, span, context.active());
      return;
    }
    const sender = propagation.extract(ROOT_CONTEXT, message.headers);
    const sent = trace.getSpanContext(sender);
    const options = { kind: SpanKind.CONSUMER, attributes };
    const span =
      this.links && sent !== undefined
        ? this.tracer.startSpan(`process ${task.name}`, { ...options, root: true, links: [{ context: sent }] }, sender)
        : this.tracer.startSpan(`process ${task.name}`, options, sender);
    this.#begin(attempt, span, sender);
  }

  beginEnqueue(enqueue: EnqueueTrace): void {
    const attributes = enqueueAttributesOf(enqueue);
    const span = this.tracer.startSpan(`enqueue ${enqueue.task.name}`, { kind: SpanKind.PRODUCER, attributes });
    const active = this.#begin(enqueue, span, context.active());
    propagation.inject(active, enqueue.message.headers, defaultTextMapSetter);
  }

  /** Of a task whose `key` is live nothing was stored: its span has the id of that one. */
  endEnqueue(enqueue: EnqueueTrace): void {
    const { result, message } = enqueue;
    if (result !== undefined && result.id !== message.id) {
      this.#open.get(enqueue)?.setAttribute('messaging.message.id', result.id);
    }
    this.end(enqueue);
  }

  end(traced: TaskTrace | EnqueueTrace): void {
    const span = this.#open.get(traced);
    if (span === undefined) return; // It began before the instrumentation was enabled.
    this.#open.delete(traced);
    if ('cancelled' in traced && outcomeOf(traced) === 'cancelled') {
      span.setAttributes(cancelledAttributes);
    } else if ('error' in traced) {
      const { type, ...exception } = failureOf(traced.error);
      span.recordException(exception);
      span.setAttribute('error.type', type);
      span.setStatus({ code: SpanStatusCode.ERROR, message: exception.message });
    }
    span.end();
  }

  /** The span is active in what is traced. */
  #begin(traced: TaskTrace | EnqueueTrace, span: Span, parent: Context): Context {
    this.#open.set(traced, span);
    const active = trace.setSpan(parent, span);
    const { wrap } = traced;
    const within: Wrap = (fn) => context.with(active, fn);
    traced.wrap = wrap === undefined ? within : (fn) => wrap(() => within(fn));
    return active;
  }
}
