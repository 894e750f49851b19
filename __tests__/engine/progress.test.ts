// Progress on its way from a worker to the store.

import { type EngineDriver, MessageRunner, type Progress, type StoredMessage } from '../../lib/engine/index.js';
import { currentTask, type Task, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';

const message: StoredMessage = { id: 'id', name: 'a', args: [], attempt: 2 };

function runnerOf(handler: Task, setProgress: NonNullable<EngineDriver['setProgress']>): MessageRunner {
  return new MessageRunner([handler], {}, undefined, undefined, { setProgress });
}

it('is stored at most twice a second, the last value of each task', async () => {
  const written: (readonly Progress[])[] = [];
  const gate = deferred();
  const counts = task('a', async () => {
    for (let value = 1; value <= 1000; value++) currentTask()?.progress(value);
    await gate.promise;
  });
  const runner = runnerOf(counts, async (progress) => void written.push(progress));
  const runs = [runner.run(message), runner.run({ ...message, id: 'id-2' })];
  await new Promise((resolve) => setTimeout(resolve, 700));
  expect(written).toEqual([
    [
      { id: 'id', attempt: 2, json: '1000' },
      { id: 'id-2', attempt: 2, json: '1000' },
    ],
  ]);
  gate.resolve();
  await Promise.all(runs);
  expect(written).toHaveLength(1);
});

it('is written by one call at a time', async () => {
  const gates = [deferred(), deferred()];
  const written: string[] = [];
  const runner = runnerOf(
    task('a', (value: number) => currentTask()?.progress(value)),
    async ([first]) => {
      written.push(first?.json ?? '');
      await gates[written.length - 1]?.promise;
    },
  );
  const runs = [1, 2].map((value) => runner.run({ ...message, id: `id-${value}`, args: [value] }));
  await new Promise((resolve) => setTimeout(resolve, 20));
  expect(written).toEqual(['1']);
  gates[0]?.resolve();
  gates[1]?.resolve();
  await Promise.all(runs);
  expect(written).toEqual(['1', '2']);
});

it('is stored before the end of its task is told', async () => {
  const log: string[] = [];
  const runner = runnerOf(
    task('a', () => currentTask()?.progress('all')),
    async ([first]) => {
      await new Promise((resolve) => setTimeout(resolve, 20));
      log.push(`progress ${first?.json}`);
    },
  );
  await runner.run(message).then(({ state }) => log.push(state));
  expect(log).toEqual(['progress "all"', 'succeeded']);
});

it('that cannot be stored fails no task', async () => {
  const runner = runnerOf(
    task('a', () => {
      currentTask()?.progress(1);
      return 'done';
    }),
    () => Promise.reject(new Error('the store is away')),
  );
  expect(await runner.run(message)).toEqual({ state: 'succeeded', result: 'done' });
});

it('is ignored where the driver cannot keep it, and once the attempt is over', async () => {
  const late = deferred();
  const reporting = task('a', async () => {
    const context = currentTask();
    context?.progress(1);
    void late.promise.then(() => context?.progress(2));
  });
  expect(await new MessageRunner([reporting]).run(message)).toMatchObject({ state: 'succeeded' });
  const written: unknown[] = [];
  const runner = runnerOf(reporting, async (progress) => void written.push(...progress));
  await runner.run(message);
  late.resolve();
  await new Promise((resolve) => setTimeout(resolve, 600));
  expect(written).toEqual([{ id: 'id', attempt: 2, json: '1' }]);
});
