// close() of a worker or an engine, called inside one of its tasks: it does not wait for that task.

import { setTimeout as sleep } from 'node:timers/promises';
import { createEngine, type EngineDriver, type MessageRunner, type TaskMessage } from '../../lib/engine/index';
import { type TaskEngine, type TaskWorker, task } from '../../lib/index';
import { deferred } from '../fixtures/deferred';

/** Keeps tasks in memory, and notes what happens. */
function driver(events: string[]): EngineDriver {
  const messages: TaskMessage[] = [];
  return {
    name: 'mine',
    async insert(message) {
      messages.push(message);
      return message.id;
    },
    work(runner: MessageRunner) {
      const ends = new Set<Promise<unknown>>();
      const wake = (): void => {
        for (const { id, name } of messages.splice(0)) {
          ends.add(runner.run({ id, name, args: [], attempt: 1 }).then(({ state }) => events.push(`${name} ${state}`)));
        }
      };
      return { wake, stop: () => {}, close: async () => void (await Promise.all(ends)) };
    },
    close: () => void events.push('driver closed'),
  };
}

const calls: [string, (engine: TaskEngine, worker: TaskWorker) => Promise<void>][] = [
  ['close() of the worker', (_engine, worker) => worker.close()],
  ['close() of the engine', (engine) => engine.close()],
];

describe.each(calls)('%s in a task', (_title, close) => {
  async function runClosing(afterClose: () => Promise<unknown> = async () => {}) {
    const events: string[] = [];
    const engine = createEngine(driver(events));
    const closed = deferred();
    const closing = task('closing', async () => {
      await close(engine, worker);
      closed.resolve();
      await afterClose();
    });
    const worker = await engine.work([closing]);
    await engine.enqueue(closing);
    return { engine, events, worker, closed: closed.promise };
  }

  it('does not wait for that task, whose end is stored', async () => {
    const { engine, events, closed } = await runClosing();
    await closed;
    await engine.close();
    expect(events).toEqual(['closing succeeded', 'driver closed']);
  });

  it('is waited for by a call from outside', async () => {
    const rest = deferred();
    const { engine, events, worker, closed } = await runClosing(() => rest.promise);
    await closed;
    const outside = close(engine, worker).then(() => events.push('closed'));
    await sleep(5);
    expect(events).toEqual([]);
    rest.resolve();
    await outside;
    expect(events[0]).toBe('closing succeeded');
    expect(events.at(-1)).toBe('closed');
    await engine.close();
  });

  it('waits if the call is made by something that an ended task has left behind', async () => {
    const events: string[] = [];
    const engine = createEngine(driver(events));
    const [over, begun, rest] = [deferred(), deferred(), deferred()];
    let late = Promise.resolve();
    const leaves = task('leaves', () => {
      late = over.promise.then(() => close(engine, worker)).then(() => void events.push('closed'));
    });
    const hangs = task('hangs', () => {
      begun.resolve();
      return rest.promise;
    });
    const worker = await engine.work([leaves, hangs]);
    await engine.enqueue(hangs);
    await begun.promise;
    await engine.enqueue(leaves);
    while (!events.includes('leaves succeeded')) await sleep(1);
    over.resolve();
    await sleep(5);
    expect(events).not.toContain('closed');
    rest.resolve();
    await late;
    expect(events).toContain('hangs succeeded');
    await engine.close();
  });

  it('waits in a task of another engine', async () => {
    const other = await runClosing(() => new Promise(() => {}));
    await other.closed;
    const events: string[] = [];
    const engine = createEngine(driver(events));
    const waits = task('waits', () => close(other.engine, other.worker));
    await engine.work([waits]);
    await engine.enqueue(waits);
    await sleep(5);
    expect(events).toEqual([]);
    await other.worker.close({ timeout: 0 });
    await engine.close();
    expect(events[0]).toBe('waits succeeded');
  });
});
