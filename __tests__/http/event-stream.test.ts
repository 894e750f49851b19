// taskStatus() as an event stream, over real sockets. Comments come every 15 s: that one test fakes the timers.

import { once } from 'node:events';
import { setTimeout as sleep } from 'node:timers/promises';
import compression from 'compression';
import type { Express, RequestHandler } from 'express';
import { createEngine, type EngineDriver } from '../../lib/engine/index.js';
import { endEarly } from '../../lib/http/open-answers.js';
import { currentTask, type TaskEngine, type TaskRecord, task, taskStatus } from '../../lib/index.js';
import { type MemoryEngine, memory } from '../../lib/testing/index.js';
import { deferred } from '../fixtures/deferred.js';
import { expresses, openSocket, type Served, serve } from '../fixtures/serve.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

const accept = { Accept: 'text/event-stream' };

interface Event {
  id: string;
  data: Record<string, unknown>;
}

/** Reads a stream to its end, or until it is told to stop. */
async function* eventsOf(response: Response): AsyncGenerator<Event> {
  let text = '';
  for await (const chunk of response.body ?? []) {
    text += Buffer.from(chunk).toString();
    for (let end = text.indexOf('\n\n'); end >= 0; end = text.indexOf('\n\n')) {
      const lines = text.slice(0, end).split('\n');
      text = text.slice(end + 2);
      if (lines[0] === ':') continue;
      expect(lines.map((line) => line.slice(0, line.indexOf(': ')))).toEqual(['id', 'data']);
      const [id = '', data = ''] = lines.map((line) => line.slice(line.indexOf(': ') + 2));
      yield { id, data: JSON.parse(data) };
    }
  }
  expect(text).toBe('');
}

async function all(response: Response): Promise<Event[]> {
  const events: Event[] = [];
  for await (const event of eventsOf(response)) events.push(event);
  return events;
}

const quick = task('quick', (_secret: string) => ({ made: 1 }));

describe.each(expresses)('an event stream on Express %s', (_version, express) => {
  let engine: MemoryEngine;

  beforeEach(() => {
    engine = memory();
  });

  afterEach(() => engine.close());

  function appWith(options?: { result?: boolean }, ...before: RequestHandler[]): Express {
    const app = express();
    app.use(...before, (_req, _res, next) => next());
    app.get('/tasks/:id', taskStatus(engine, options));
    return app;
  }

  function ask(served: Served, id: string, headers: Record<string, string> = {}): Promise<Response> {
    return fetch(`${served.url}/tasks/${id}`, { headers: { ...accept, ...headers } });
  }

  it('tells of each change until the task is over, with the fields of the JSON', async () => {
    const served = await serve(appWith({ result: true }));
    const gate = deferred();
    const slow = task('slow', async (_secret: string) => {
      currentTask()?.progress({ percent: 50 });
      await gate.promise;
      return { made: 1 };
    });
    const { id } = await engine.enqueue(slow, 'secret');
    const response = await ask(served, id);
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toMatch(/^text\/event-stream(;|$)/);
    expect(response.headers.get('cache-control')).toBe('no-store, no-transform');
    expect(response.headers.get('x-accel-buffering')).toBe('no');
    expect(response.headers.get('vary')).toContain('Accept');
    const events: Event[] = [];
    let worker: Promise<unknown> | undefined;
    for await (const event of eventsOf(response)) {
      events.push(event);
      worker ??= engine.work([slow]);
      if (event.data['progress'] !== undefined) gate.resolve();
    }
    await worker;
    expect(events.map(({ data }) => data['state'])).toEqual(expect.arrayContaining(['queued', 'running', 'succeeded']));
    expect(events.some(({ data }) => data['state'] === 'running' && data['progress'] !== undefined)).toBe(true);
    expect(events.at(-1)).toEqual({
      id: 'succeeded-1',
      data: await (await fetch(`${served.url}/tasks/${id}`)).json(),
    });
    expect(events.at(-1)?.data).toMatchObject({ progress: { percent: 50 }, result: { made: 1 } });
    expect(JSON.stringify(events)).not.toContain('secret');
  });

  it('has the result only where that is asked for', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const served = await serve(appWith());
    const response = await ask(served, id);
    await engine.drain([quick]);
    const events = await all(response);
    expect(events.at(-1)).toMatchObject({ id: 'succeeded-1', data: { id, state: 'succeeded' } });
    expect(JSON.stringify(events)).not.toMatch(/secret|made/);
  });

  it('of a task that is over is its end, and an EventSource that connects again is told to stop', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    await engine.drain([quick]);
    const served = await serve(appWith());
    const [event, ...more] = await all(await ask(served, id));
    expect(more).toEqual([]);
    expect(event).toMatchObject({ id: 'succeeded-1', data: { state: 'succeeded' } });
    for (const lastEventId of ['succeeded-1', '17', 'of somebody else']) {
      const again = await ask(served, id, { 'Last-Event-ID': lastEventId });
      expect(again.status).toBe(204);
      expect(again.headers.get('cache-control')).toBe('no-store');
      expect(await again.text()).toBe('');
    }
  });

  it('gives its end to an EventSource whose connection broke before that', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const served = await serve(appWith());
    await engine.drain([quick]);
    for (const lastEventId of ['queued-0', 'running-1', '']) {
      const events = await all(await ask(served, id, { 'Last-Event-ID': lastEventId }));
      expect(events.map((event) => event.id)).toEqual(['succeeded-1']);
    }
  });

  it('goes on for an EventSource that connects again meanwhile', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const served = await serve(appWith());
    const response = await ask(served, id, { 'Last-Event-ID': 'queued-0' });
    await engine.drain([quick]);
    const ids = (await all(response)).map((event) => event.id);
    expect([ids[0], ids.at(-1)]).toEqual(['queued-0', 'succeeded-1']);
  });

  it('is not there for an unknown or odd id: 404 as JSON', async () => {
    const served = await serve(appWith());
    for (const id of ['nobody', '00000000-0000-4000-8000-000000000000', '%00', 'x'.repeat(5000)]) {
      const response = await ask(served, id);
      expect(response.status).toBe(404);
      expect(await response.json()).toEqual({ error: 'No such task' });
    }
  });

  it('ends where the task is removed meanwhile', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const response = await ask(await serve(appWith()), id);
    await engine.remove(id);
    expect((await all(response)).map((event) => event.id)).toEqual(['queued-0']);
  });

  it('is chosen by Accept alone: whoever takes anything gets JSON', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const { url } = await serve(appWith());
    const types: Record<string, string> = {
      '*/*': 'json',
      'application/json, text/event-stream': 'json',
      'text/html,application/xhtml+xml,*/*;q=0.8': 'json',
      'text/html': 'json',
      'text/event-stream;q=0': 'json',
      'not a type': 'json',
      'text/event-stream, application/json;q=0.5': 'event-stream',
    };
    for (const [accepted, type] of Object.entries(types)) {
      const leaving = new AbortController();
      const response = await fetch(`${url}/tasks/${id}`, { headers: { Accept: accepted }, signal: leaving.signal });
      expect(`${accepted}: ${response.headers.get('content-type')}`).toContain(
        `: ${type === 'json' ? 'application' : 'text'}/${type}`,
      );
      leaving.abort();
    }
  });

  it('answers HEAD without a body, and at once', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const { url } = await serve(appWith());
    const response = await fetch(`${url}/tasks/${id}`, { method: 'HEAD', headers: accept });
    expect(response.status).toBe(200);
    expect(response.headers.get('content-type')).toContain('text/event-stream');
    expect(await response.text()).toBe('');
  });

  it('is not held back by compression in front of it', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const served = await serve(appWith({}, compression({ threshold: 0 })));
    const response = await ask(served, id, { 'Accept-Encoding': 'gzip' });
    expect(response.headers.get('content-encoding')).toBeNull();
    let last = '';
    for await (const event of eventsOf(response)) {
      if (event.id === 'queued-0') await engine.drain([quick]); // Only now, so this event came before the end.
      last = event.id;
    }
    expect(last).toBe('succeeded-1');
  });

  it('frees all when the client leaves', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const watched = watchesOf(engine);
    const served = await serve(appWith());
    const leaving = new AbortController();
    const response = await fetch(`${served.url}/tasks/${id}`, { headers: accept, signal: leaving.signal });
    await response.body?.getReader().read();
    expect(watched.signals).toHaveLength(1);
    leaving.abort();
    await expect(watched.ended()).resolves.toBe(1);
    expect(watched.signals[0]?.aborted).toBe(true);
  });

  it('does not begin for a client that has left before', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const watch = jest.spyOn(engine, 'watch');
    const came = deferred();
    const gone = deferred();
    const before: RequestHandler = (_req, res, next) => {
      came.resolve();
      res.on('close', () => setImmediate(() => [next(), setTimeout(gone.resolve, 50)]));
    };
    const leaving = new AbortController();
    const { url } = await serve(appWith({}, before));
    const answer = fetch(`${url}/tasks/${id}`, { headers: accept, signal: leaving.signal });
    await came.promise;
    leaving.abort();
    await expect(answer).rejects.toThrow();
    await gone.promise;
    expect(watch).not.toHaveBeenCalled();
  });

  it('ends at a shutdown', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const closes: (() => void)[] = [];
    const before: RequestHandler = (_req, res, next) => {
      closes.push(() => endEarly(res));
      next();
    };
    const response = await ask(await serve(appWith({}, before)), id);
    for (const close of closes) close();
    expect((await all(response)).map((event) => event.id)).toEqual(['queued-0']);
  });

  it('ends when the engine is closed', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const response = await ask(await serve(appWith()), id);
    const events = all(response);
    await engine.close();
    expect((await events).map((event) => event.id)).toEqual(['queued-0']);
  });

  it('waits for a slow reader, who misses what was in between', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    let count = 0;
    let unsent = 0;
    const big = 'x'.repeat(100_000);
    const records = async function* (): AsyncGenerator<TaskRecord> {
      for (; count < 200; count++) {
        yield {
          id,
          name: 'quick',
          state: 'running',
          attempts: 1,
          enqueuedAt: new Date(0),
          progress: `${count} ${big}`,
        };
      }
    };
    jest.spyOn(engine, 'watch').mockImplementation(records);
    const served = await serve(
      appWith({}, (_req, res, next) => {
        const timer = setInterval(() => {
          unsent = Math.max(unsent, res.writableLength);
        }, 1);
        res.on('close', () => clearInterval(timer));
        next();
      }),
    );
    const socket = await openSocket(served.port);
    socket.pause();
    socket.write(`GET /tasks/${id} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`);
    while (unsent === 0) await sleep(5);
    await sleep(50);
    expect(count).toBeLessThan(200);
    expect(unsent).toBeLessThan(1_000_000);
    socket.resume();
    while (count < 200) await sleep(5);
    socket.destroy();
  });

  it('frees all when a client leaves that has stopped reading', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const progress = 'x'.repeat(1_000_000);
    const ended = deferred();
    let count = 0;
    jest.spyOn(engine, 'watch').mockImplementation(async function* (_id, options): AsyncGenerator<TaskRecord> {
      try {
        while (options?.signal?.aborted !== true) {
          yield { id, name: 'quick', state: 'running', attempts: count++, enqueuedAt: new Date(0), progress };
        }
      } finally {
        ended.resolve();
      }
    });
    const { port } = await serve(appWith());
    const socket = await openSocket(port);
    socket.pause();
    socket.write(`GET /tasks/${id} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`);
    for (let before = -1; count === 0 || before < count; await sleep(50)) before = count;
    socket.destroy();
    await ended.promise;
  });

  it('sends a comment every 15 s, unless the client does not read, and none once it has left', async () => {
    const { id } = await engine.enqueue(quick, 'secret');
    const unread: (() => void)[] = [];
    const before: RequestHandler = (_req, res, next) => {
      unread.push(() => Object.defineProperty(res, 'writableNeedDrain', { value: true }));
      next();
    };
    jest.useFakeTimers({ doNotFake: ['setImmediate', 'nextTick', 'queueMicrotask', 'performance'] });
    try {
      const served = await serve(appWith({}, before));
      const timers = jest.getTimerCount();
      const socket = await openSocket(served.port);
      let text = '';
      socket.on('data', (chunk) => {
        text += chunk;
      });
      socket.write(`GET /tasks/${id} HTTP/1.1\r\nHost: a\r\nAccept: text/event-stream\r\n\r\n`);
      const until = async (isDone: () => boolean): Promise<void> => {
        while (!isDone()) await new Promise((resolve) => setImmediate(resolve));
      };
      await until(() => text.includes('data: '));
      const comments = (): number => text.split('\n:\n').length - 1;
      expect(comments()).toBe(0);
      await jest.advanceTimersByTimeAsync(30_000);
      await until(() => comments() === 2);
      for (const close of unread) close();
      await jest.advanceTimersByTimeAsync(30_000);
      await new Promise((resolve) => setImmediate(resolve));
      expect(comments()).toBe(2);
      socket.destroy();
      await once(socket, 'close');
      while (jest.getTimerCount() > timers) await jest.advanceTimersByTimeAsync(100);
    } finally {
      jest.useRealTimers();
    }
  });
});

/** The watches of an engine, and how many have ended. */
function watchesOf(engine: TaskEngine) {
  const signals: AbortSignal[] = [];
  let count = 0;
  const original = engine.watch.bind(engine);
  jest.spyOn(engine, 'watch').mockImplementation(async function* (id, options) {
    if (options?.signal !== undefined) signals.push(options.signal);
    try {
      yield* original(id, options);
    } finally {
      count++;
    }
  });
  const ended = async (): Promise<number> => {
    while (count === 0) await sleep(5);
    return count;
  };
  return { signals, ended };
}

describe('an event stream, the store away', () => {
  const [[, express] = []] = expresses;
  const id = '00000000-0000-4000-8000-000000000001';
  let record: TaskRecord | undefined;
  let asked = 0;
  let isAway = false;
  const find: EngineDriver['find'] = async () => {
    asked++;
    if (isAway) throw new Error('away');
    return record === undefined ? [] : [record];
  };

  beforeEach(() => {
    isAway = false;
    record = { id, name: 'quick', state: 'queued', attempts: 0, enqueuedAt: new Date(0) };
  });

  async function open(): Promise<Response> {
    const engine = createEngine({ name: 'mine', insert: async (message) => message.id, find, close: () => {} });
    if (express === undefined) throw new Error('no Express');
    const app = express();
    app.get('/tasks/:id', taskStatus(engine));
    app.use((error: { status: number }, _req: unknown, res: StatusResponse, _next: unknown) => {
      res.status(error.status).end();
    });
    return fetch(`${(await serve(app)).url}/tasks/${id}`, { headers: accept });
  }

  it('stays open, and goes on when it is back', async () => {
    const response = await open();
    isAway = true;
    const before = asked;
    const events = all(response);
    while (asked < before + 2) await sleep(10);
    record = { id, name: 'quick', state: 'succeeded', attempts: 1, enqueuedAt: new Date(0) };
    isAway = false;
    expect((await events).map((event) => event.id)).toEqual(['queued-0', 'succeeded-1']);
  });

  it('ends after half a minute', async () => {
    const clock = jest.spyOn(performance, 'now');
    try {
      const response = await open();
      isAway = true;
      const now = performance.now();
      let looks = 0;
      clock.mockImplementation(() => now + 16_000 * looks++);
      expect((await all(response)).map((event) => event.id)).toEqual(['queued-0']);
    } finally {
      clock.mockRestore();
    }
  });

  it('is the 503 of the application where it does not begin', async () => {
    isAway = true;
    expect((await open()).status).toBe(503);
  });
});

interface StatusResponse {
  status(code: number): { end(): void };
}
