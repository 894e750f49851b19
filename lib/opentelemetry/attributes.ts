// The attributes of spans and metrics: those of the conventions for messaging, and a few of our own.
// https://opentelemetry.io/docs/specs/semconv/messaging/messaging-spans/

import type { Attributes } from '@opentelemetry/api';
import { serializeError } from '../engine/serialize.js';
import type { EnqueueTrace } from '../engine/tracing.js';
import { BackgroundTasksError } from '../errors.js';
import { outcomeOf, type TaskTrace } from '../task/tracing.js';

const taskName = 'background_task.name';

/** Of an attempt's span. Where a worker runs it, the queue that the conventions call a destination is that of the task's name. */
export function attributesOf({ task, engine }: TaskTrace): Attributes {
  const own = { [taskName]: task.name, 'background_task.id': task.id, 'background_task.attempt': task.attempt };
  return engine === undefined ? own : { ...own, ...messaging(engine, task), ...operation('process', 'process') };
}

export function enqueueAttributesOf({ task, engine }: EnqueueTrace): Attributes {
  return { [taskName]: task.name, ...messaging(engine, task), ...operation('enqueue', 'send') };
}

function messaging(engine: string, { id, name }: { readonly id: string; readonly name: string }): Attributes {
  return { 'messaging.system': engine, 'messaging.destination.name': name, 'messaging.message.id': id };
}

function operation(name: string, type: string): Attributes {
  return { 'messaging.operation.name': name, 'messaging.operation.type': type };
}

const taskOutcome = 'background_task.outcome';

/** Of the metrics of an attempt that has ended. */
export function measuredBy(attempt: TaskTrace): Attributes {
  const verb = attempt.engine === undefined ? 'add' : 'enqueue';
  return { [taskName]: attempt.task.name, 'background_task.verb': verb, [taskOutcome]: outcomeOf(attempt) };
}

/** Of the span of an attempt that was cancelled, which is no failure. */
export const cancelledAttributes: Attributes = { [taskOutcome]: 'cancelled' };

/** Of what enqueue has counted. `errorType`: it was not stored. */
export function countedBy({ task, engine }: EnqueueTrace, errorType: string | undefined): Attributes {
  const attributes: Attributes = { [taskName]: task.name, 'messaging.system': engine };
  return errorType === undefined ? attributes : { ...attributes, 'error.type': errorType };
}

export interface Failure {
  readonly name: string;
  readonly message: string;
  readonly stack?: string;
  /** The code of an error of this library, or else the error's name. */
  readonly type: string;
}

/** Of whatever a task has thrown. */
export function failureOf(error: unknown): Failure {
  const written = serializeError(error);
  return { ...written, type: codeOf(error) ?? written.name };
}

function codeOf(error: unknown): string | undefined {
  try {
    return error instanceof BackgroundTasksError ? error.code : undefined;
  } catch {
    return undefined; // A proxy may throw here.
  }
}
