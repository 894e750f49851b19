// The tracing channel of enqueue.

import { AsyncLocalStorage } from 'node:async_hooks';
import { type Channel, tracingChannel } from 'node:diagnostics_channel';
import { createEngine } from '../../lib/engine/index';
import { BackgroundTasksError, type EnqueueTrace, type TaskTrace, task } from '../../lib/index';
import { type MemoryEngine, memory } from '../../lib/testing/index';

type EventName = 'start' | 'end' | 'asyncStart' | 'asyncEnd' | 'error';
const eventNames: EventName[] = ['start', 'end', 'asyncStart', 'asyncEnd', 'error'];

function channelsOf(name: string): Record<EventName, Channel> {
  return tracingChannel(name) as unknown as Record<EventName, Channel>;
}

const enqueues = channelsOf('express-background-tasks:enqueue');
const attempts = channelsOf('express-background-tasks:task');

const stops: (() => void)[] = [];
let engine: MemoryEngine;
beforeEach(() => {
  engine = memory();
});
afterEach(async () => {
  for (const stop of stops.splice(0)) stop();
  await engine.close();
});

function on<Trace>(channel: Channel, listener: (trace: Trace) => void): void {
  const subscriber = (trace: unknown): void => listener(trace as Trace);
  channel.subscribe(subscriber);
  stops.push(() => channel.unsubscribe(subscriber));
}

function record(names = eventNames): { name: EventName; trace: EnqueueTrace }[] {
  const events: { name: EventName; trace: EnqueueTrace }[] = [];
  for (const name of names) on<EnqueueTrace>(enqueues[name], (trace) => events.push({ name, trace }));
  return events;
}

function headersInWorker(): unknown[] {
  const seen: unknown[] = [];
  on<TaskTrace>(attempts.start, ({ message }) => seen.push(message?.headers));
  return seen;
}

const namesOf = (events: { name: EventName }[]): EventName[] => events.map(({ name }) => name);
const mail = task('mail', async (_to: string) => {});

describe('the channel of enqueue', () => {
  it('publishes the events of Node’s own tracePromise() with the task, its arguments, the message and its id', async () => {
    const events = record();
    const args = ['ada@example.com'] as const;
    const { id } = await engine.enqueue(mail, ...args);
    expect(namesOf(events)).toEqual(['start', 'end', 'asyncStart', 'asyncEnd']);
    expect(new Set(events.map(({ trace }) => trace)).size).toBe(1);
    expect(events[0]?.trace).toEqual({
      task: { id, name: 'mail', attempt: 0 },
      args,
      engine: 'memory',
      message: { id, headers: {} },
      result: { id },
    });
  });

  it('publishes what enqueue rejects with', async () => {
    const events = record();
    await engine.close();
    const error: unknown = await engine.enqueue(mail, 'a').catch((reason: unknown) => reason);
    expect(namesOf(events)).toEqual(['start', 'end', 'error', 'asyncStart', 'asyncEnd']);
    expect(events[0]?.trace.error).toBe(error);
    expect(events[0]?.trace).not.toHaveProperty('result');
  });

  it('tells in the result which task has the key', async () => {
    const events = record(['asyncEnd']);
    const once = mail.with({ key: 'k' });
    const first = await engine.enqueue(once, 'a');
    await engine.enqueue(once, 'b');
    expect(events.map(({ trace }) => trace.result)).toEqual([first, first]);
    expect(events[1]?.trace.message.id).not.toBe(first.id);
  });

  it('gives the worker the headers that a subscriber of start has written', async () => {
    on<EnqueueTrace>(enqueues.start, ({ message, task: { name } }) => {
      message.headers['traceparent'] = `of ${name}`;
    });
    const seen = headersInWorker();
    const { id } = await engine.enqueue(mail, 'a');
    let traced: TaskTrace | undefined;
    on<TaskTrace>(attempts.start, (trace) => {
      traced = trace;
    });
    await engine.drain([mail]);
    expect(seen).toEqual([{ traceparent: 'of mail' }]);
    expect(traced).toMatchObject({ engine: 'memory', message: { id, headers: { traceparent: 'of mail' } } });
  });

  it('gives the worker no headers where nobody has written any', async () => {
    const seen = headersInWorker();
    await engine.enqueue(mail, 'a');
    record();
    await engine.enqueue(mail, 'b');
    await engine.drain([mail]);
    expect(seen).toEqual([{}, {}]);
  });

  it('publishes each task of enqueueMany, with headers of its own', async () => {
    const events = record();
    on<EnqueueTrace>(enqueues.start, ({ args, message }) => {
      message.headers['to'] = String(args[0]);
    });
    const seen = headersInWorker();
    const ids = await engine.enqueueMany(mail, [['a'], ['b']]);
    expect(namesOf(events)).toEqual([
      ...['start', 'start', 'end', 'end'],
      ...['asyncStart', 'asyncEnd', 'asyncStart', 'asyncEnd'],
    ]);
    expect([...new Set(events.map(({ trace }) => trace))].map(({ result }) => result)).toEqual(ids);
    await engine.drain([mail]);
    expect(seen).toEqual([{ to: 'a' }, { to: 'b' }]);
  });

  it('publishes the one task that enqueueMany makes of those with one key', async () => {
    const events = record(['start']);
    await engine.enqueueMany(mail.with({ key: 'k' }), [['a'], ['b']]);
    expect(events.map(({ trace }) => trace.args)).toEqual([['a']]);
  });

  it('publishes nothing for an enqueueMany of no tasks, nor for what is no task', async () => {
    const events = record();
    await engine.enqueueMany(mail, []);
    await expect(engine.enqueue((() => {}) as never)).rejects.toMatchObject({ code: 'ERR_INVALID_TASK' });
    expect(events).toEqual([]);
  });

  const oneByOne = createEngine({ name: 'mine', insert: async ({ id }) => id, close: () => {} });
  const refused: [string, () => Promise<unknown>, unknown[][]][] = [
    ['arguments', () => engine.enqueue(mail, 1n as never), [[1n]]],
    ['an option', () => engine.enqueue(mail.with({ when: 'success' }), 'a'), [['a']]],
    ['one of many', () => engine.enqueueMany(mail, [['a'], [1n as never]]), [['a'], [1n]]],
    ['what the engine cannot do', () => oneByOne.enqueueMany(mail, [['a']]), [['a']]],
  ];
  it.each(refused)('publishes what is refused before it gets to the store: %s', async (_, call, argLists) => {
    const events = record();
    const error: unknown = await call().catch((reason: unknown) => reason);
    const each = argLists.map(() => 1);
    expect(namesOf(events)).toEqual([
      ...each.map(() => 'start'),
      ...each.map(() => 'end'),
      ...each.map(() => 'error'),
      ...each.flatMap(() => ['asyncStart', 'asyncEnd']),
    ]);
    const traces = [...new Set(events.map(({ trace }) => trace))];
    expect(traces.map(({ args }) => args)).toEqual(argLists);
    for (const trace of traces) expect(trace).toMatchObject({ task: { name: 'mail', attempt: 0 }, error });
    expect(error).toBeInstanceOf(BackgroundTasksError);
  });

  it('calls the store within the "wrap" of the first task', async () => {
    const store = new AsyncLocalStorage<string>();
    on<EnqueueTrace>(enqueues.start, (trace) => {
      trace.wrap = (fn) => store.run(String(trace.args[0]), fn);
    });
    let inside: string | undefined;
    const { asyncStart } = enqueues;
    on(asyncStart, () => {
      inside ??= 'ended';
    });
    const insert = engine.enqueueMany(mail, [['a'], ['b']]);
    await insert;
    expect(inside).toBe('ended');
    expect(await engine.list({ name: 'mail' })).toHaveLength(2);
  });

  it.each(eventNames)('publishes to a subscriber of "%s" alone', async (name) => {
    const events = record([name]);
    await engine.close();
    await engine.enqueue(mail, 'a').catch(() => {});
    expect(namesOf(events)).toEqual([name]);
  });
});

describe('headers', () => {
  it('leave out what is no string, with a warning of the process, once', async () => {
    on<EnqueueTrace>(enqueues.start, ({ message }) => {
      Object.assign(message.headers, { good: 'a', bad: 1 });
    });
    const seen = headersInWorker();
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    await engine.enqueue(mail, 'a');
    await engine.enqueue(mail, 'b');
    await engine.drain([mail]);
    expect(seen).toEqual([{ good: 'a' }, { good: 'a' }]);
    expect(warn.mock.calls).toEqual([[expect.stringContaining('8 kB'), 'BackgroundTasksWarning']]);
    warn.mockRestore();
  });

  it.each([
    ['are no object', 'nonsense', {}],
    ['are too large', { large: 'x'.repeat(9000) }, {}],
    [
      'are more than 8 kB together',
      { baggage: 'x'.repeat(8100), tenant: 'a', traceparent: '0'.repeat(55) },
      'the rest',
    ],
  ])('are left out where they %s, the largest first', async (_title, headers, left) => {
    on<EnqueueTrace>(enqueues.start, ({ message }) => {
      message.headers = headers as Record<string, string>;
    });
    const seen = headersInWorker();
    await engine.enqueue(mail, 'a');
    await engine.drain([mail]);
    expect(seen).toEqual([left === 'the rest' ? { tenant: 'a', traceparent: '0'.repeat(55) } : left]);
  });
});
