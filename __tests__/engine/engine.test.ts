// What authors of engines get for talking to a server that may be away.

import { engineUnavailable, isUuid, load, store, unsupported } from '../../lib/engine/index.js';
import { BackgroundTasksError } from '../../lib/index.js';
import { hostileErrors } from '../fixtures/hostile.js';

jest.mock('../../lib/clock', () => require('../fixtures/global-clock'));

beforeEach(() => {
  jest.useFakeTimers();
});

afterEach(() => {
  const left = jest.getTimerCount();
  jest.useRealTimers();
  expect(left).toBe(0);
});

const never = (): Promise<never> => new Promise(() => {});

describe.each([
  ['store', store, 'stored'],
  ['load', load, 'read'],
] as const)('%s()', (_, ask, done) => {
  const unavailable = (cause: unknown, reason: string) => ({
    name: 'BackgroundTasksError',
    code: 'ERR_ENGINE_UNAVAILABLE',
    message: `mine: the task could not be ${done}: ${reason}`,
    cause,
  });

  it('resolves with what the engine answers', async () => {
    await expect(ask('mine', async () => 'answer')).resolves.toBe('answer');
  });

  it.each([
    ['rejects', async () => Promise.reject(new Error('gone'))],
    [
      'throws',
      () => {
        throw new Error('gone');
      },
    ],
  ])('rejects with ERR_ENGINE_UNAVAILABLE where the client %s', async (_title, fails) => {
    await expect(ask('mine', fails)).rejects.toMatchObject(unavailable(new Error('gone'), 'gone'));
  });

  it('says what is no Error, too', async () => {
    await expect(ask('mine', () => Promise.reject('gone'))).rejects.toMatchObject(unavailable('gone', 'gone'));
  });

  it.each(Object.entries(hostileErrors))(
    'rejects, with an Error, also where the client rejects with %s',
    async (_title, make) => {
      const error = await ask('mine', () => Promise.reject(make())).catch((caught: unknown) => caught);
      expect(error).toBeInstanceOf(Error);
    },
  );

  it('names the trouble where that is known, and not what it led to', async () => {
    const trouble = new Error('connect ECONNREFUSED');
    const fails = (): Promise<never> => Promise.reject(new Error('Connection is closed.'));
    await expect(ask('mine', fails, () => trouble)).rejects.toMatchObject(unavailable(trouble, trouble.message));
    await expect(ask('mine', fails, () => undefined)).rejects.toMatchObject({
      cause: { message: 'Connection is closed.' },
    });
  });

  it("passes on the library's own errors as they are", async () => {
    const error = new BackgroundTasksError('ERR_INVALID_OPTION', 'mine');
    await expect(
      ask(
        'mine',
        () => Promise.reject(error),
        () => new Error('trouble'),
      ),
    ).rejects.toBe(error);
  });

  it('rejects after 4500 ms without an answer, and tells the client so', async () => {
    let late: AbortSignal | undefined;
    const answer = ask('mine', (signal) => {
      late = signal;
      return never();
    });
    const rejected = expect(answer).rejects.toMatchObject(unavailable(expect.any(Error), 'no answer within 4500 ms'));
    await jest.advanceTimersByTimeAsync(4499);
    expect(late?.aborted).toBe(false);
    await jest.advanceTimersByTimeAsync(1);
    expect(late?.aborted).toBe(true);
    await rejected;
  });

  it('does not abort what has been answered', async () => {
    let late: AbortSignal | undefined;
    await ask('mine', async (signal) => {
      late = signal;
    });
    await jest.advanceTimersByTimeAsync(10_000);
    expect(late?.aborted).toBe(false);
  });
});

test('engineUnavailable() speaks of storing, unless told otherwise', () => {
  const cause = new Error('full');
  expect(engineUnavailable('mine', cause)).toMatchObject({
    message: 'mine: the task could not be stored: full',
    cause,
  });
});

test('unsupported() names the option', () => {
  expect(unsupported('mine', 'delay', 'there is no clock')).toMatchObject({
    code: 'ERR_INVALID_OPTION',
    message: 'mine: "delay" is not possible: there is no clock',
  });
});

test.each([
  ['0f8fad5b-d9cb-469f-a165-70867728950e', true],
  ['x0f8fad5b-d9cb-469f-a165-70867728950e', false],
  ['0f8fad5b-d9cb-469f-a165-70867728950ex', false],
  ['0f8fad5b-d9cb-469f-a165-70867728950', false],
  ['0f8fad5bd9cb469fa16570867728950e', false],
  ['', false],
])('isUuid(%j)', (id, is) => {
  expect(isUuid(id)).toBe(is);
});
