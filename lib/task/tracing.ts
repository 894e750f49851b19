// The tracing channel of attempts. Events come in the order of Node's own TracingChannel: start and end, then asyncStart and
// asyncEnd for an awaited attempt, with error before them. Unlike tracePromise() it keeps a synchronous task synchronous.

import { AsyncResource } from 'node:async_hooks';
import { type Channel, tracingChannel } from 'node:diagnostics_channel';
import type { Request, Response } from 'express';
import { isAwaitable } from '../foreign-value.js';
import type { AnyFunction, TaskInfo } from './types.js';
import { callWithin, type Wrap } from './wrap.js';

/** What subscribers of `tracingChannel('express-background-tasks:task')` get: the same object for all events of an attempt. */
export interface TaskTrace {
  task: TaskInfo;
  args: readonly unknown[];
  /** Absent where no response belongs to the task: in a worker. */
  req?: Request;
  res?: Response;
  /** In a worker: the engine's name, such as `sqlite`. */
  engine?: string;
  /** In a worker: what was enqueued. Its headers are those that a subscriber of the channel for `enqueue` has written. */
  message?: { readonly id: string; readonly headers: Readonly<Record<string, string>> };
  /**
   * May be set by a subscriber of `start`: the attempt is called within it. It is to call its argument at once; what it returns
   * is ignored. A second subscriber wraps what the first one has set.
   */
  wrap?: Wrap;
  /** What the attempt returned, once it has. */
  result?: unknown;
  /** What the attempt threw or rejected with, once it has. */
  error?: unknown;
  /** `cancel()` has aborted the signal: an error that follows is no failure. */
  cancelled?: true;
}

/** Of an attempt that has ended. */
export function outcomeOf(trace: TaskTrace): 'succeeded' | 'failed' | 'cancelled' {
  if (!('error' in trace)) return 'succeeded';
  return trace.cancelled === true ? 'cancelled' : 'failed';
}

// The type lacks properties that TracingChannel has in every Node from 20 on.
const channel: Record<'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error', Channel> = tracingChannel(
  'express-background-tasks:task',
);

/** Node 20 has no `hasSubscribers` for a tracing channel as a whole. */
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
  /** Keeps the stores bound to the channel for asyncStart and asyncEnd. Undefined unless the attempt is awaited. */
  #stores: AsyncResource | undefined = undefined;

  constructor(context: TaskTrace) {
    this.#context = context;
  }

  /** Runs the attempt up to its first await. Throws what the attempt throws. */
  call(fn: AnyFunction, args: readonly unknown[]): unknown {
    const context = this.#context;
    return channel.start.runStores(context, () => {
      try {
        const result = callWithin<unknown>(context.wrap, () => Reflect.apply(fn, undefined, args));
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

  cancel(): void {
    this.#context.cancelled = true;
  }

  /** It was given up before it has ended, which is a failure. */
  drop(): void {
    delete this.#context.cancelled;
  }

  /** Publishes the end of an awaited attempt. For a synchronous one, call() has published everything. */
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
