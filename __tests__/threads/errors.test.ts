// Errors arrive from a thread as they were thrown.

import { BackgroundTasksError, NonRetryableError } from '../../lib/index';
import { boxError, unboxError } from '../../lib/threads/error-box';
import { hostileErrors } from '../fixtures/hostile';
import { openThreads, workTask } from './fixtures/open-threads';

jest.mock('../../lib/threads/worker-file', () => require('./fixtures/compiled-sources'));

const pool = openThreads();

/** What a function of work.ts throws. */
async function thrownBy(name: 'refuse' | 'failWithMany' | 'giveUp' | 'giveUpByCause'): Promise<unknown> {
  return workTask(pool, name)().then(
    () => 'nothing',
    (error: unknown) => error,
  );
}

describe('an error from a thread', () => {
  it('has its name, message, stack, cause and own properties, and is of the class that its own is based on', async () => {
    const error = await thrownBy('refuse');
    expect(error).toBeInstanceOf(TypeError);
    expect(error).toMatchObject({
      name: 'Refused',
      message: 'not today',
      code: 'E_REFUSED',
      details: { tries: [1, 2] },
      stack: expect.stringMatching(/^Refused: not today\n +at refuse \(.*work\.js:\d+:\d+\)/),
      cause: { name: 'RangeError', message: 'too far', cause: 'the road' },
    });
    expect((error as Error).cause).toBeInstanceOf(RangeError);
    expect(Object.keys(error as Error)).toEqual(['code', 'details']);
  });

  it('has what an AggregateError holds, the same one twice', async () => {
    const error = await thrownBy('failWithMany');
    expect(error).toBeInstanceOf(AggregateError);
    const { errors } = error as AggregateError;
    expect(errors).toMatchObject([{ name: 'SyntaxError', message: 'first', line: 3 }, 'second', {}]);
    expect(errors[2]).toBe(errors[0]);
    expect(Object.keys(error as Error)).toEqual([]);
  });

  it('is a NonRetryableError where it was one, also as a cause', async () => {
    expect(await thrownBy('giveUp')).toBeInstanceOf(NonRetryableError);
    expect(await thrownBy('giveUpByCause')).toMatchObject({ message: 'wrapped', cause: expect.any(NonRetryableError) });
  });

  it.each<[source: string, value: unknown]>([
    ['null', null],
    ['undefined', undefined],
    ['0', 0],
    ["'text'", 'text'],
    ['({ status: 404, body: [1] })', { status: 404, body: [1] }],
    ["Symbol('s')", 'Symbol(s)'],
    ['() => {}', '[Function (anonymous)]'],
  ])('may be no error at all: %s', async (source, value) => {
    await expect(workTask(pool, 'throwMade')(source)).rejects.toEqual(value);
  });

  it('is a DOMException where it was one', async () => {
    const error: unknown = await workTask(
      pool,
      'throwMade',
    )("new DOMException('too late', 'TimeoutError')").catch((reason: unknown) => reason);
    expect(error).toBeInstanceOf(DOMException);
    expect(error).toMatchObject({ name: 'TimeoutError', message: 'too late', code: 23 });
  });
});

/** As it crosses. */
const cross = (thrown: unknown): unknown => unboxError(structuredClone(boxError(thrown)));

describe('an error that is boxed', () => {
  it.each(Object.entries(hostileErrors))('may be hostile: %s', (_title, make) => {
    cross(make());
  });

  it.each(['ownKeys', 'has', 'getPrototypeOf'])('may be a Proxy whose trap %p throws', (trap) => {
    const refuse = (): never => {
      throw new Error('hands off');
    };
    const crossed = cross(new Proxy({ message: 'boom', stack: 'Error: boom' }, { [trap]: refuse }));
    expect(crossed).toMatchObject({ message: 'boom' });
  });

  it('may hold a list of errors that cannot be looked at', () => {
    const { proxy, revoke } = Proxy.revocable([], {});
    const error = Object.assign(new Error('boom'), { errors: proxy });
    revoke();
    expect(cross(error)).toBe('a value that throws when it is looked at');
  });

  it('may have a name and a message that are no texts', () => {
    const error = Object.assign(new Error(), { name: undefined, message: { code: 5 } });
    expect(cross(error)).toMatchObject({ name: '', message: '{ code: 5 }' });
  });

  it('may have a property that throws when it is read', () => {
    const error = Object.defineProperty(new Error('boom'), 'detail', {
      enumerable: true,
      get() {
        throw new Error('hands off');
      },
    });
    expect(cross(error)).toMatchObject({ message: 'boom', detail: undefined });
  });

  it('may be its own cause', () => {
    const error = new Error('boom');
    error.cause = error;
    const crossed = cross(error) as Error;
    expect(crossed.cause).toBe(crossed);
  });

  it('may be a chain without an end', () => {
    let error = new Error('the first');
    for (let link = 0; link < 1000; link++) error = new Error('another', { cause: error });
    let length = 0;
    for (let link: unknown = cross(error); link instanceof Error; link = link.cause) length++;
    expect(length).toBe(100);
  });

  it('keeps of its properties what can be cloned, and a description of the rest', () => {
    const error = Object.assign(new Error('boom'), {
      response: { status: 500, end() {} },
      inner: new RangeError('in'),
    });
    expect(cross(error)).toMatchObject({
      response: expect.stringContaining('status: 500'),
      inner: { name: 'RangeError', message: 'in' },
    });
  });

  it('is a BackgroundTasksError where it was one, with its code and status', () => {
    const crossed = cross(new BackgroundTasksError('ERR_TASKS_CLOSED', 'closed'));
    expect(crossed).toBeInstanceOf(BackgroundTasksError);
    expect(crossed).toMatchObject({ code: 'ERR_TASKS_CLOSED', status: 503, name: 'BackgroundTasksError' });
  });

  it('stands for no retry where it has the mark of another copy of this package', () => {
    const marked = Object.assign(new Error('no use'), { [Symbol.for('express-background-tasks.non-retryable')]: true });
    expect(cross(marked)).toBeInstanceOf(NonRetryableError);
  });

  it('may have "errors" that are no list', () => {
    expect(cross(Object.assign(new Error('invalid'), { errors: { name: 'missing' } }))).toMatchObject({
      errors: { name: 'missing' },
    });
  });
});
