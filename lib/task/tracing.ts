// The tracing channel of attempts, published in the order of Node's own TracingChannel: start, end, then for what was
// awaited asyncStart and asyncEnd, with error before them. Unlike tracePromise it keeps a synchronous task synchronous.

import { AsyncResource } from 'node:async_hooks';
import { type Channel, tracingChannel } from 'node:diagnostics_channel';
import type { Request, Response } from 'express';
import { isAwaitable } from '../foreign-value.js';
import type { AnyFunction, TaskInfo } from './types.js';

/** What subscribers of `tracingChannel('express-background-tasks:task')` receive: one object per attempt. */
export interface TaskTrace {
  task: TaskInfo;
  args: readonly unknown[];
  /** Absent where no response belongs to the task: in a worker. */
  req?: Request;
  res?: Response;
  /** What the attempt returned, once it has. */
  result?: unknown;
  /** What the attempt threw or rejected with, once it has. */
  error?: unknown;
}

// Its type lacks the properties of TracingChannel that every Node from 20 on has.
const channel: Record<'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error', Channel> = tracingChannel(
  'express-background-tasks:task',
);

/** Node 20 knows this of its channels only one by one. */
export function isTraced(): boolean {
  return (
    channel.start.hasSubscribers ||
    channel.end.hasSubscribers ||
    channel.asyncStart.hasSubscribers ||
    channel.asyncEnd.hasSubscribers ||
    channel.error.hasSubscribers
  );
}

/** Publishes one attempt. */
export class AttemptTrace {
  readonly #context: TaskTrace;
  /** Keeps the stores bound to the channel for the events of the end. Undefined unless the attempt is awaited. */
  #stores: AsyncResource | undefined = undefined;

  constructor(context: TaskTrace) {
    this.#context = context;
  }

  /** Runs the attempt up to its first await. Throws what the attempt throws. */
  call(fn: AnyFunction, args: readonly unknown[]): unknown {
    const context = this.#context;
    return channel.start.runStores(context, () => {
      try {
        const result: unknown = Reflect.apply(fn, undefined, args);
        if (isAwaitable(result)) this.#stores = new AsyncResource('BackgroundTaskTrace');
        else context.result = result;
        return result;
      } catch (error) {
        context.error = error;
        channel.error.publish(context);
        throw error;
      } finally {
        channel.end.publish(context);
      }
    });
  }

  /** The end of an attempt. Of one that was not awaited all is told by then. */
  settle(isError: boolean, result: unknown): void {
    if (this.#stores === undefined) return;
    const context = this.#context;
    if (isError) context.error = result;
    else context.result = result;
    this.#stores.runInAsyncScope(publishSettled, undefined, context, isError);
  }
}

function publishSettled(context: TaskTrace, isError: boolean): void {
  if (isError) channel.error.publish(context);
  channel.asyncStart.publish(context);
  channel.asyncEnd.publish(context);
}
