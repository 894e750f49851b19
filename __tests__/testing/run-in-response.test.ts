// runInResponse(): code that calls after() and enqueue(), without HTTP.

import type { Response } from 'express';
import { after, currentTask, enqueue, task } from '../../lib/index.js';
import { memory, runInResponse } from '../../lib/testing/index.js';

const anything = (value: unknown): never => value as never;

const sendMail = task('send-mail', async (_to: string) => {});

it('calls the function as a handler, ends the response, and resolves when its tasks have run', async () => {
  const engine = memory();
  const log: string[] = [];
  const { value, tasks } = await runInResponse(
    async (res) => {
      after(async function first() {
        log.push(`first, ended: ${res.writableEnded}`);
        after(function third() {
          log.push('third');
        });
      });
      res.locals.backgroundTasks.add(function second() {
        log.push('second');
        return currentTask()?.name;
      });
      await enqueue(sendMail, 'ada@example.com');
      log.push('handler');
      return 42;
    },
    { engine },
  );
  expect(value).toBe(42);
  expect(log).toEqual(['handler', 'first, ended: true', 'second', 'third']);
  expect(tasks.map(({ name, status }) => [name, status])).toEqual([
    ['first', 'succeeded'],
    ['second', 'succeeded'],
    ['third', 'succeeded'],
  ]);
  expect(await tasks[1]?.finished).toEqual({ status: 'succeeded', value: 'second' });
  expect(engine.enqueued(sendMail)).toEqual([['ada@example.com']]);
});

it('gives the function the response to a GET of /', async () => {
  const { value } = await runInResponse(({ req: { method, url } }) => ({ method, url }));
  expect(value).toEqual({ method: 'GET', url: '/' });
});

it('takes a function that returns at once, and one without tasks', async () => {
  expect(await runInResponse(() => 'value')).toEqual({ value: 'value', tasks: [] });
});

it('rejects with what the function throws, once its tasks have run behind a 500', async () => {
  const error = new Error('no such order');
  const ran = jest.fn();
  const outcomes: unknown[] = [];
  const run = runInResponse(() => {
    after(ran);
    after(
      task('only after a success', ran, {
        when: (outcome) => {
          outcomes.push(outcome);
          return false;
        },
      }),
    );
    throw error;
  });
  await expect(run).rejects.toBe(error);
  expect(ran).toHaveBeenCalledTimes(1);
  expect(outcomes).toEqual([{ statusCode: 500, completed: true }]);
});

it.each([
  ['statusCode', (res: Response) => void Object.assign(res, { statusCode: 404 })],
  ['writeHead()', (res: Response) => void res.writeHead(404).end()],
])('keeps the status that the function has set by %s', async (_name, answer) => {
  const run = (res: Response): void => {
    after(() => {});
    answer(res);
  };
  const { tasks } = await runInResponse(run, { when: 'success' });
  expect(tasks.map(({ status }) => status)).toEqual(['skipped']);
});

it('keeps the status of an answer behind which the function fails', async () => {
  const outcomes: unknown[] = [];
  const run = runInResponse((res) => {
    after(task('looks', () => {}, { when: (outcome) => outcomes.push(outcome) > 0 }));
    res.writeHead(204).end();
    throw new Error('too late');
  });
  await expect(run).rejects.toThrow('too late');
  expect(outcomes).toEqual([{ statusCode: 204, completed: true }]);
});

it('ends the response with the status that is asked for', async () => {
  const { tasks } = await runInResponse(() => after(() => {}).name, { status: 404, when: 'success' });
  expect(tasks.map(({ status }) => status)).toEqual(['skipped']);
});

it('takes the options of the middleware, and refuses bad ones', async () => {
  const onError = jest.fn();
  const { tasks } = await runInResponse(() => void after(() => Promise.reject(new Error('fails'))), { onError });
  expect(tasks.map(({ status }) => status)).toEqual(['failed']);
  expect(onError).toHaveBeenCalledTimes(1);
  const bad = { timeout: -1 };
  await expect(runInResponse(() => {}, bad)).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
  await expect(runInResponse(() => {}, anything(null))).rejects.toMatchObject({ code: 'ERR_INVALID_OPTION' });
});

it.each([99, 1000, 200.5, Number.NaN, '200', null])(
  'refuses the status %p before it calls the function',
  async (status) => {
    const fn = jest.fn();
    await expect(runInResponse(fn, { status: anything(status) })).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('runInResponse(): "status" must be a status code from 100 to 999'),
    });
    expect(fn).not.toHaveBeenCalled();
  },
);

it('takes each status from 100 to 999', async () => {
  for (const status of [100, 999]) {
    const { tasks } = await runInResponse(() => void after(() => {}), { status });
    expect(tasks.map((handle) => handle.status)).toEqual(['succeeded']);
  }
});

it('refuses what is no function', async () => {
  await expect(runInResponse(anything(Promise.resolve()))).rejects.toMatchObject({
    code: 'ERR_INVALID_OPTION',
    message: 'runInResponse(): the first argument must be a function, not a promise',
  });
});
