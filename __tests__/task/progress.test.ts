// currentTask().progress(), after a response. What becomes of it in a worker is in engine/progress.test.ts.

import { currentTask, type TaskHandle } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { serveTasks } from '../fixtures/serve-tasks';

it('is what the handle tells: undefined before, then the last value, also once the task is over', async () => {
  const { middleware, respond } = await serveTasks();
  const gates = [deferred(), deferred()];
  const begun = deferred();
  const handle: TaskHandle = await respond((tasks) =>
    tasks.add(async () => {
      begun.resolve();
      for (const [step, { promise }] of gates.entries()) {
        await promise;
        currentTask()?.progress({ step });
      }
    }),
  );
  await begun.promise;
  expect(handle.progress).toBeUndefined();
  gates[0]?.resolve();
  await new Promise(setImmediate);
  expect(handle.progress).toEqual({ step: 0 });
  gates[1]?.resolve();
  await middleware.idle();
  expect(handle.progress).toEqual({ step: 1 });
});

it('may be asked for before anything else of the handle, and changes nothing else of it', async () => {
  const { respond } = await serveTasks();
  const { handle, before, id, finished } = await respond((tasks) => {
    const handle = tasks.add(() => currentTask()?.progress(1));
    const before = handle.progress;
    return { handle, before, id: handle.id, finished: handle.finished };
  });
  expect(await finished).toEqual({ status: 'succeeded', value: undefined });
  expect([before, handle.progress, handle.id]).toEqual([undefined, 1, id]);
});

it('is reported as well by the function alone', async () => {
  const { respond } = await serveTasks();
  const handle = await respond((tasks) =>
    tasks.add(() => {
      const { progress } = currentTask() ?? {};
      progress?.(1);
    }),
  );
  expect(await handle.finished).toMatchObject({ status: 'succeeded' });
  expect(handle.progress).toBe(1);
});

it('is a copy', async () => {
  const { middleware, respond } = await serveTasks();
  const value = { done: 1 };
  const handle = await respond((tasks) =>
    tasks.add(() => {
      currentTask()?.progress(value);
      value.done = 2;
    }),
  );
  await middleware.idle();
  expect(handle.progress).toEqual({ done: 1 });
  expect(handle.progress).not.toBe(handle.progress);
});

it('is kept through the attempts of a task, and ignored once the attempt is over', async () => {
  const { middleware, respond } = await serveTasks({ retries: { limit: 1, minDelay: 1 } });
  const late = deferred();
  const handle = await respond((tasks) =>
    tasks.add(async () => {
      const context = currentTask();
      if (context?.attempt === 2) {
        void late.promise.then(() => context.progress('late'));
        return;
      }
      context?.progress('first');
      throw new Error('again');
    }),
  );
  await middleware.idle();
  late.resolve();
  await new Promise(setImmediate);
  expect(handle.progress).toBe('first');
});

it('that is no JSON, or over 64 kB, is ignored with one warning of the process, and the task goes on', async () => {
  const warn = jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
  const { middleware, respond } = await serveTasks();
  const handle = await respond((tasks) =>
    tasks.add(function reporting() {
      currentTask()?.progress('x'.repeat(64 * 1024 - 2));
      for (const bad of [undefined, () => {}, 1n, 'ž'.repeat(32 * 1024)]) currentTask()?.progress(bad);
      return 'done';
    }),
  );
  expect(await handle.finished).toEqual({ status: 'succeeded', value: 'done' });
  await middleware.idle();
  expect(handle.progress).toBe('x'.repeat(64 * 1024 - 2));
  expect(warn.mock.calls).toEqual([
    [expect.stringContaining('the progress of task "reporting" was ignored'), 'BackgroundTasksWarning'],
  ]);
});
