// The tracing channel of enqueue. Events come in the order of Node's own tracePromise(): start and end around the call, then
// asyncStart and asyncEnd when the task is stored, with error before them where it is not.

import { type Channel, tracingChannel } from 'node:diagnostics_channel';
import type { TaskInfo } from '../task/types.js';
import { callWithin, type Wrap } from '../task/wrap.js';
import { readHeaders } from './headers.js';
import type { TaskMessage } from './message.js';

/**
 * What subscribers of `tracingChannel('express-background-tasks:enqueue')` get: the same object for all events of a task that is
 * enqueued, also where it is refused before it gets to the store. For the tasks of `enqueueMany` each event comes once a task, and
 * the `wrap` of the first one counts.
 */
export interface EnqueueTrace {
  /** Its `attempt` is 0. */
  task: TaskInfo;
  args: readonly unknown[];
  /** The engine's name: `sqlite`. */
  engine: string;
  /** Subscribers of `start` may write its headers: strings, together at most 8 kB as JSON. The worker's channel has them again. */
  message: { readonly id: string; headers: Record<string, string> };
  /** Once the task is stored. The id is another one where a live task has the same `key`: then nothing was stored. */
  result?: { readonly id: string };
  /** What `enqueue` rejects with, once it has failed. */
  error?: unknown;
  /**
   * May be set by a subscriber of `start`: the call to the store is made within it. It is to call its argument at once; what it
   * returns is ignored. A second subscriber wraps what the first one has set.
   */
  wrap?: Wrap;
}

// The type lacks properties that TracingChannel has in every Node from 20 on.
const channel: Record<'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error', Channel> = tracingChannel(
  'express-background-tasks:enqueue',
);

/** What an event tells of a task. */
type Traced = Pick<TaskMessage, 'id' | 'name' | 'args' | 'headers'>;

type Store<M> = (messages: readonly M[]) => Promise<readonly string[]>;

/** Publishes the enqueue of tasks that are stored in one write, with the headers that subscribers have written. */
export function traceEnqueue<M extends Traced>(
  engine: string,
  messages: readonly M[],
  store: Store<M>,
): Promise<readonly string[]> {
  return isTraced() ? traced(engine, messages, store) : store(messages);
}

function isTraced(): boolean {
  return (
    channel.start.hasSubscribers ||
    channel.end.hasSubscribers ||
    channel.asyncStart.hasSubscribers ||
    channel.asyncEnd.hasSubscribers ||
    channel.error.hasSubscribers
  );
}

async function traced<M extends Traced>(
  engine: string,
  messages: readonly M[],
  store: Store<M>,
): Promise<readonly string[]> {
  const traces = messages.map((message) => traceOf(engine, message));
  const [first, ...others] = traces;
  if (first === undefined) return store(messages);
  try {
    const ids = await channel.start.runStores(first, () => {
      for (const trace of others) channel.start.publish(trace);
      try {
        return callWithin(first.wrap, () =>
          store(messages.map((message, index) => withHeaders(message, traces[index]))),
        );
      } finally {
        for (const trace of traces) channel.end.publish(trace);
      }
    });
    for (const [index, trace] of traces.entries()) trace.result = { id: ids[index] ?? trace.message.id };
    return ids;
  } catch (error) {
    for (const trace of traces) {
      trace.error = error;
      channel.error.publish(trace);
    }
    throw error;
  } finally {
    for (const trace of traces) {
      channel.asyncStart.publish(trace);
      channel.asyncEnd.publish(trace);
    }
  }
}

function traceOf(engine: string, { id, name, args }: Traced): EnqueueTrace {
  return { task: { id, name, attempt: 0 }, args, engine, message: { id, headers: {} } };
}

function withHeaders<M extends Traced>(message: M, trace: EnqueueTrace | undefined): M {
  const headers = readHeaders(trace?.message.headers, message.name);
  return headers === undefined ? message : { ...message, headers };
}
