// Promise 11: a NonRetryableError is the last failure of a task.

import type * as Library from '../../lib/index';
import { BackgroundTasksError, NonRetryableError } from '../../lib/index';
import { hostileProxy } from '../fixtures/hostile';
import { serveTasks } from '../fixtures/serve-tasks';

let secondCopy: typeof Library;

beforeAll(() => {
  jest.isolateModules(() => {
    secondCopy = require('../../lib/index');
  });
});

/** How many attempts a task gets that throws this, with three retries. */
async function attemptsOf(makeError: () => unknown): Promise<number> {
  let attempts = 0;
  const { middleware, respond, reports } = await serveTasks({ retries: { limit: 3, minDelay: 1, jitter: false } });
  await respond((tasks) =>
    tasks.add(async () => {
      attempts++;
      throw makeError();
    }),
  );
  await middleware.idle();
  expect(reports).toHaveLength(1);
  expect(reports[0]?.task.attempt).toBe(attempts);
  return attempts;
}

it('has a name, and takes a message and a cause', () => {
  const cause = new Error('404');
  const error = new NonRetryableError('no such user', { cause });
  expect(error).toBeInstanceOf(Error);
  expect(error).toMatchObject({ name: 'NonRetryableError', message: 'no such user', cause });
  expect(error).not.toBeInstanceOf(BackgroundTasksError);
  expect(Object.keys(error)).toEqual([]);
});

it.each<[string, () => unknown]>([
  ['thrown', () => new NonRetryableError('gone')],
  ['the cause of what is thrown', () => new Error('wrapped', { cause: new NonRetryableError('gone') })],
  [
    'further down in its causes',
    () => new Error('a', { cause: new Error('b', { cause: new NonRetryableError('gone') }) }),
  ],
  ['the cause of what is no Error', () => ({ cause: new NonRetryableError('gone') })],
  ['of another copy of the package', () => new secondCopy.NonRetryableError('gone')],
  ['of a class that extends it', () => new (class Gone extends NonRetryableError {})('gone')],
])('is not followed by a retry, %s', async (_title, makeError) => {
  expect(await attemptsOf(makeError)).toBe(1);
});

it.each<[string, () => unknown]>([
  ['another Error', () => new Error('busy')],
  ['undefined', () => undefined],
  [
    'an Error that causes itself',
    () => {
      const error = new Error('circle');
      error.cause = error;
      return error;
    },
  ],
  ['what throws when it is looked at', () => hostileProxy({})],
])('%s is retried', async (_title, makeError) => {
  expect(await attemptsOf(makeError)).toBe(4);
});
