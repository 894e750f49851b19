// collectTasks() with prom-client's own registry.

import { subscribe, unsubscribe } from 'node:diagnostics_channel';
import { setTimeout as sleep } from 'node:timers/promises';
import express from 'express';
import { Registry } from 'prom-client';
import {
  BackgroundTasksError,
  backgroundTasks,
  currentTask,
  type EngineStats,
  type TaskEngine,
  task,
} from '../../lib/index';
import { type CollectOptions, collectTasks } from '../../lib/prometheus/index';
import { type MemoryEngine, memory } from '../../lib/testing/index';
import { deferred } from '../fixtures/deferred';
import { serve } from '../fixtures/serve';

let registry: Registry;
let engine: MemoryEngine;
let remove: () => void;

function collect(options?: CollectOptions): void {
  remove = collectTasks(registry, options);
}

beforeEach(() => {
  registry = new Registry();
  engine = memory();
  remove = () => {};
});

afterEach(async () => {
  remove();
  await engine.close();
});

/** The lines of a metric, without its help. */
async function lines(name: string): Promise<string[]> {
  const text = await registry.metrics();
  return text.split('\n').filter((line) => line.startsWith(`${name}{`) || line.startsWith(`${name} `));
}

const mail = task('mail', async (_to: string) => {});

/** Runs until it is cancelled, by itself. */
const cancelled = task('cancelled', async () => {
  const { signal, id = '' } = currentTask() ?? {};
  await engine.cancel(id);
  await new Promise((_resolve, reject) => signal?.addEventListener('abort', () => reject(signal.reason)));
});

describe('collectTasks', () => {
  it('measures attempts by task, verb and outcome, and counts what was enqueued', async () => {
    collect();
    const failing = task('failing', () => {
      throw new Error('no');
    });
    await engine.enqueueMany(mail, [['a'], ['b']]);
    await engine.enqueue(failing);
    await engine.enqueue(cancelled);
    await engine.drain([mail, failing, cancelled], { onError: () => {} });
    expect(await lines('background_task_duration_seconds_count')).toEqual([
      'background_task_duration_seconds_count{task="mail",verb="enqueue",outcome="succeeded"} 2',
      'background_task_duration_seconds_count{task="failing",verb="enqueue",outcome="failed"} 1',
      'background_task_duration_seconds_count{task="cancelled",verb="enqueue",outcome="cancelled"} 1',
    ]);
    expect(await lines('background_tasks_enqueued_total')).toEqual([
      'background_tasks_enqueued_total{task="mail",engine="memory"} 2',
      'background_tasks_enqueued_total{task="failing",engine="memory"} 1',
      'background_tasks_enqueued_total{task="cancelled",engine="memory"} 1',
    ]);
    await engine.close();
    await engine.enqueue(mail, 'c').catch(() => {});
    expect(await lines('background_tasks_enqueue_errors_total')).toEqual([
      'background_tasks_enqueue_errors_total{task="mail",engine="memory"} 1',
    ]);
  });

  it('shows what is pending, runs and has ended in this process', async () => {
    const tasks = backgroundTasks({ onError: () => {} });
    collect({ tasks });
    const app = express();
    app.use(tasks);
    const gate = deferred();
    const begun = deferred();
    app.post('/', (_req, res) => {
      res.locals.backgroundTasks.add(() => {
        begun.resolve();
        return gate.promise;
      });
      res.locals.backgroundTasks.add(() => {
        throw new Error('no');
      });
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url, { method: 'POST' });
    await begun.promise;
    expect(await lines('background_tasks_running')).toEqual(['background_tasks_running 1']);
    expect(await lines('background_tasks_pending')).toEqual(['background_tasks_pending 1']);
    gate.resolve();
    await tasks.idle();
    const ended = ['succeeded 1', 'failed 1', 'skipped 0', 'cancelled 0', 'abandoned 0'].map((text) => {
      const [status, count] = text.split(' ');
      return `background_tasks_ended_total{status="${status}"} ${count}`;
    });
    expect(await lines('background_tasks_ended_total')).toEqual(ended);
    expect(await lines('background_tasks_ended_total')).toEqual(ended); // A second scrape does not count twice.
    expect(await lines('background_task_duration_seconds_count')).toEqual(
      expect.arrayContaining([expect.stringContaining('verb="add",outcome="succeeded"} 1')]),
    );
  });

  it('shows what the engine has, and for how long its oldest due task has waited', async () => {
    collect({ engine });
    await engine.enqueue(mail, 'a');
    await engine.enqueue(mail.with({ delay: 3_600_000 }), 'b');
    engine.advance(5000);
    expect(await lines('background_tasks_queue_tasks')).toEqual([
      'background_tasks_queue_tasks{state="due"} 1',
      'background_tasks_queue_tasks{state="delayed"} 1',
      'background_tasks_queue_tasks{state="running"} 0',
      'background_tasks_queue_tasks{state="failed"} 0',
    ]);
    expect(await lines('background_tasks_queue_up')).toEqual(['background_tasks_queue_up 1']);
    expect(await lines('background_tasks_queue_oldest_due_seconds')).toHaveLength(1);
    await engine.drain([mail]);
    expect(await lines('background_tasks_queue_oldest_due_seconds')).toEqual([
      'background_tasks_queue_oldest_due_seconds 0',
    ]);
  });

  it('asks the engine once a scrape', async () => {
    const stats = jest.spyOn(engine, 'stats');
    collect({ engine });
    await registry.metrics();
    expect(stats).toHaveBeenCalledTimes(1);
  });

  it('does not wait for an engine that is slow: it shows what it last knew', async () => {
    const answers: ((stats: EngineStats) => void)[] = [];
    const slow: TaskEngine = Object.assign(Object.create(engine), {
      stats: () => new Promise<EngineStats>((resolve) => answers.push(resolve)),
    });
    collect({ engine: slow });
    const first = await lines('background_tasks_queue_tasks');
    expect(first).toEqual([]);
    answers[0]?.({ queued: 7, due: 7, running: 0, succeeded: 0, failed: 0, cancelled: 0 });
    await sleep(1);
    expect(await lines('background_tasks_queue_tasks')).toContain('background_tasks_queue_tasks{state="due"} 7');
    expect(answers).toHaveLength(2); // One question at a time.
  });

  it('does not fail where the engine is away, and tells', async () => {
    collect({ engine });
    await engine.enqueue(mail, 'a');
    await registry.metrics();
    await engine.close();
    expect(await lines('background_tasks_queue_up')).toEqual(['background_tasks_queue_up 0']);
    expect(await lines('background_tasks_queue_tasks')).toEqual([]);
    expect(await lines('background_tasks_queue_oldest_due_seconds')).toEqual([]);
  });

  it('has no figures of the queue of an engine that cannot count, and says so once', async () => {
    const handsOver: TaskEngine = Object.assign(Object.create(engine), {
      stats: () => Promise.reject(new BackgroundTasksError('ERR_INVALID_OPTION', 'mine: it cannot count')),
    });
    const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
    collect({ engine: handsOver });
    expect(await lines('background_tasks_queue_up')).toEqual([]);
    expect(await lines('background_tasks_queue_tasks')).toEqual([]);
    expect(warn.mock.calls).toEqual([[expect.stringContaining('it cannot count'), 'BackgroundTasksWarning']]);
    warn.mockRestore();
  });

  it('has figures of the queue that are not added up for the processes of a cluster', async () => {
    collect({ engine, tasks: backgroundTasks() });
    const metrics = await registry.getMetricsAsJSON();
    const aggregators = Object.fromEntries(metrics.map(({ name, aggregator }) => [name, aggregator]));
    expect(aggregators).toMatchObject({
      background_tasks_queue_up: 'max',
      background_tasks_queue_tasks: 'max',
      background_tasks_queue_oldest_due_seconds: 'max',
      background_tasks_pending: 'sum',
    });
  });

  it('makes no more than 200 names', async () => {
    collect();
    for (let number = 0; number < 300; number++) await engine.enqueue(task(`task ${number}`, () => {}));
    const names = await lines('background_tasks_enqueued_total');
    expect(names).toHaveLength(201);
    expect(names).toContain('background_tasks_enqueued_total{task="other",engine="memory"} 100');
  });

  it('measures no attempt that began before', async () => {
    const other = (): void => {}; // It makes the attempt a traced one.
    subscribe('tracing:express-background-tasks:task:start', other);
    const gate = deferred();
    const begun = deferred();
    const held = task('held', () => {
      begun.resolve();
      return gate.promise;
    });
    await engine.enqueue(held);
    const drained = engine.drain([held]);
    await begun.promise;
    collect();
    gate.resolve();
    await drained;
    expect(await lines('background_task_duration_seconds_count')).toEqual([]);
    unsubscribe('tracing:express-background-tasks:task:start', other);
  });

  it('removes its metrics again, and may then be called anew', async () => {
    collect({ engine, tasks: backgroundTasks() });
    remove();
    expect(await registry.metrics()).toBe('\n');
    await engine.enqueue(mail, 'a');
    collect();
    expect(await lines('background_tasks_enqueued_total')).toEqual([]);
  });

  it('refuses a registry that has them already, and registers nothing', async () => {
    collect();
    const invalid = expect.objectContaining({ code: 'ERR_INVALID_OPTION' });
    expect(() => collectTasks(registry, { engine })).toThrow(invalid);
    expect(registry.getSingleMetric('background_tasks_queue_up')).toBeUndefined();
  });

  it.each([
    [undefined, {}],
    [{}, {}],
    [new Registry(), { engine: 1 }],
    [new Registry(), { tasks: () => {} }],
    [new Registry(), { unknown: 1 }],
  ])('refuses bad input: %#', (first, options) => {
    expect(() => collectTasks(first as Registry, options as CollectOptions)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION' }),
    );
  });

  it('ends its text with a line feed, without which Prometheus drops the last line', async () => {
    collect();
    await engine.enqueue(mail, 'a');
    expect(await registry.metrics()).toMatch(/\n$/);
  });
});
