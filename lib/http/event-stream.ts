// The state of a stored task as server-sent events (https://html.spec.whatwg.org/multipage/server-sent-events.html).

import { once } from 'node:events';
import type { Request, Response } from 'express';
import { clearInterval, monotonicTime, setInterval, sleep } from '../clock.js';
import { isOfClosedEngine } from '../engine/calls.js';
import { isOver, type TaskEngine, type TaskRecord } from '../engine/engine.js';
import { ignore } from '../foreign-value.js';
import { openUntil } from './open-answers.js';
import { statusOf } from './status.js';

/** Comments keep the connection from being taken for dead, in ms. */
const commentInterval = 15_000;

/** While the store is out of reach the stream stays open, for so long, and asks again after each pause, in ms. */
const patience = 30_000;
const pause = 1_000;

/** Begins with the record, and follows the task until it is over or the client leaves. */
export async function streamStatus(
  engine: TaskEngine,
  record: TaskRecord,
  withResult: boolean,
  req: Request,
  res: Response,
): Promise<void> {
  if (isOver(record.state) && hasSeen(req.headers['last-event-id'], record)) {
    res.set('Cache-Control', 'no-store').status(204).end();
    return;
  }
  res.set({
    'Content-Type': 'text/event-stream',
    // no-transform: compression middleware would hold events back.
    'Cache-Control': 'no-store, no-transform',
    'X-Accel-Buffering': 'no', // The same for nginx.
  });
  if (req.method === 'HEAD') {
    res.end();
    return;
  }
  const { signal } = openUntil(res);
  const stream = new EventStream(res, withResult, signal);
  try {
    await stream.send(record);
    if (!isOver(record.state)) await follow(engine, record.id, withResult, stream, signal);
  } finally {
    stream.end();
  }
}

async function follow(
  engine: TaskEngine,
  id: string,
  withResult: boolean,
  stream: EventStream,
  signal: AbortSignal,
): Promise<void> {
  let failingSince: number | undefined;
  while (!signal.aborted) {
    try {
      for await (const record of engine.watch(id, { signal, result: withResult })) {
        failingSince = undefined;
        await stream.send(record);
      }
      return;
    } catch (error) {
      if (isOfClosedEngine(error)) return;
      failingSince ??= monotonicTime();
      if (monotonicTime() - failingSince >= patience) return;
      await ignore(sleep(pause, undefined, { signal }));
    }
  }
}

class EventStream {
  readonly #res: Response;
  readonly #withResult: boolean;
  readonly #signal: AbortSignal;
  readonly #comments: NodeJS.Timeout;
  #last = '';

  constructor(res: Response, withResult: boolean, signal: AbortSignal) {
    this.#res = res;
    this.#withResult = withResult;
    this.#signal = signal;
    this.#comments = setInterval(() => {
      if (!res.writableNeedDrain) res.write(':\n\n');
    }, commentInterval);
  }

  /** Resolves when there is room for the next event. A slow client gets fewer of them. */
  async send(record: TaskRecord): Promise<void> {
    const data = JSON.stringify(statusOf(record, this.#withResult));
    if (data === this.#last || this.#signal.aborted) return;
    this.#last = data;
    if (this.#res.write(`id: ${eventId(record)}\ndata: ${data}\n\n`)) return;
    await ignore(once(this.#res, 'drain', { signal: this.#signal }));
  }

  end(): void {
    clearInterval(this.#comments);
    this.#res.end();
  }
}

function eventId({ state, attempts }: TaskRecord): string {
  return `${state}-${attempts}`;
}

/**
 * An EventSource that connects again, whose last event may be the end of the task. It would ask for ever if it were not told to
 * stop. If its connection broke before that event, it gets it now.
 */
function hasSeen(lastEventId: string | string[] | undefined, record: TaskRecord): boolean {
  if (lastEventId === undefined || lastEventId === '') return false;
  return lastEventId === eventId(record) || !ownEventId.test(String(lastEventId));
}

const ownEventId = /^(queued|running|succeeded|failed|cancelled)-\d+$/;
