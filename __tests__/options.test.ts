// Promise 14, second half: bad options throw where they are given, and the message shows what was given.

import { type BackgroundTasksOptions, backgroundTasks, type TaskOptions, task } from '../lib/index';
import { hostileErrors } from './fixtures/hostile';

const nothing = (): void => {};
const invalid = (message: string | RegExp) =>
  expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringMatching(message) });

/** What a call throws. */
function thrownBy(call: () => unknown): unknown {
  try {
    call();
  } catch (error) {
    return error;
  }
  throw new Error('nothing was thrown');
}

/** Feeds what the types forbid. */
const withOptions = (options: unknown) => () => backgroundTasks(options as BackgroundTasksOptions);
const withTaskOptions = (options: unknown) => () => task('name', nothing, options as TaskOptions);

/** Of the middleware and of a task. */
const badTaskOptions: [name: string, value: unknown, shown: string][] = [
  ['when', 'never', "'never'"],
  ['when', true, 'true'],
  ['when', null, 'null'],
  ['when', Promise.resolve(true), 'a promise'],
  ['timeout', 0, '0'],
  ['timeout', -1, '-1'],
  ['timeout', Number.NaN, 'NaN'],
  ['timeout', 2 ** 31, '2147483648'],
  ['timeout', '100', "'100'"],
  ['timeout', 100n, '100n'],
  ['timeout', null, 'null'],
  ['retries', -1, '-1'],
  ['retries', 1.5, '1.5'],
  ['retries', Number.NaN, 'NaN'],
  ['retries', Number.POSITIVE_INFINITY, 'Infinity'],
  ['retries', '3', "'3'"],
  ['retries', null, 'null'],
  ['retries', {}, '{}'],
  ['retries', { limit: undefined }, '{ limit: undefined }'],
  ['retries', { limit: 1, minDelay: 11, maxDelay: 10 }, '{ limit: 1, minDelay: 11, maxDelay: 10 }'],
];

const badOptions: [name: string, value: unknown, shown: string][] = [
  ...badTaskOptions,
  ['logger', null, 'null'],
  ['logger', 'console', "'console'"],
  ['logger', {}, '{}'],
  ['logger', { error: 'log' }, "{ error: 'log' }"],
  ['logger', { warn: nothing }, '{ warn: [Function: nothing] }'],
  ['onError', 'log', "'log'"],
  ['onError', null, 'null'],
  ['onError', {}, '{}'],
  ['stopOnError', 1, '1'],
  ['stopOnError', 'false', "'false'"],
  ['stopOnError', null, 'null'],
  ['concurrency', 0, '0'],
  ['concurrency', 1.5, '1.5'],
  ['concurrency', '4', "'4'"],
  ['concurrency', Number.NaN, 'NaN'],
  ['maxPending', 0, '0'],
  ['maxPending', -1, '-1'],
  ['maxPending', Number.NEGATIVE_INFINITY, '-Infinity'],
  ['waitUntil', true, 'true'],
  ['waitUntil', Promise.resolve(), 'a promise'],
];

const badRetries: [name: string, value: unknown, shown: string][] = [
  ['limit', -1, '-1'],
  ['limit', 1.5, '1.5'],
  ['limit', '3', "'3'"],
  ['minDelay', -1, '-1'],
  ['minDelay', 2 ** 31, '2147483648'],
  ['minDelay', '10', "'10'"],
  ['maxDelay', -1, '-1'],
  ['maxDelay', Number.POSITIVE_INFINITY, 'Infinity'],
  ['factor', 0.5, '0.5'],
  ['factor', Number.NaN, 'NaN'],
  ['factor', Number.POSITIVE_INFINITY, 'Infinity'],
  ['factor', '2', "'2'"],
  ['jitter', 0.5, '0.5'],
  ['jitter', null, 'null'],
];

const goodTaskOptions: TaskOptions[] = [
  {},
  { timeout: undefined, retries: undefined, when: undefined },
  { timeout: 1 },
  { timeout: 0.5 },
  { timeout: 2 ** 31 - 1 },
  { timeout: Number.POSITIVE_INFINITY },
  { retries: 0 },
  { retries: 100 },
  { retries: { limit: 0 } },
  { retries: { limit: 3, minDelay: 0, maxDelay: 0, factor: 1, jitter: false } },
  { retries: { limit: 3, minDelay: 60_000 } },
  { retries: { limit: 3, minDelay: 10, maxDelay: 10 } },
  { when: 'always' },
  { when: 'success' },
  { when: () => true },
];

const goodOptions: BackgroundTasksOptions[] = [
  ...goodTaskOptions,
  { logger: console },
  { logger: Object.assign(() => {}, { error: nothing }) },
  { onError: nothing },
  { onError: async () => {} },
  { stopOnError: false },
  { concurrency: 1 },
  { concurrency: Number.POSITIVE_INFINITY },
  { maxPending: 1_000_000 },
  { waitUntil: nothing },
  { logger: undefined, onError: undefined, stopOnError: undefined, concurrency: undefined, maxPending: undefined },
];

const noOptions: [value: unknown, shown: string][] = [
  [null, 'null'],
  [true, 'true'],
  ['always', "'always'"],
  [5, '5'],
  [[], '[]'],
  [nothing, '[Function: nothing]'],
];

describe('promise 14: fail early, in backgroundTasks()', () => {
  it.each(badOptions)('throws for %s: %p', (name, value, shown) => {
    const error = thrownBy(withOptions({ [name]: value }));
    expect(error).toEqual(invalid(`^backgroundTasks\\(\\): "${name}" must be .+, not `));
    expect((error as Error).message.endsWith(`, not ${shown}`)).toBe(true);
  });

  it.each(badRetries)('throws for %s of retries: %p', (name, value, shown) => {
    const error = thrownBy(withOptions({ retries: { limit: 1, [name]: value } }));
    expect(error).toEqual(invalid(`^retries: "${name}" must be .+, not `));
    expect((error as Error).message.endsWith(`, not ${shown}`)).toBe(true);
  });

  it.each(noOptions)('throws for what are no options: %p', (options, shown) => {
    expect(thrownBy(withOptions(options))).toEqual(
      expect.objectContaining({
        code: 'ERR_INVALID_OPTION',
        message: `backgroundTasks(): the options must be an object, not ${shown}`,
      }),
    );
  });

  it.each(['onerror', 'delay', 'toString', 'constructor', '__proto__'])(
    'throws for the unknown option %p, and names those that there are',
    (name) => {
      const options = Object.defineProperty({}, name, { value: 1, enumerable: true });
      expect(thrownBy(withOptions(options))).toEqual(
        invalid(
          `^backgroundTasks\\(\\): unknown option "${name}"; there are concurrency, .*logger, .*onError, .*when$`,
        ),
      );
    },
  );

  it('throws for an unknown option also if that is undefined', () => {
    expect(thrownBy(withOptions({ onerror: undefined }))).toEqual(invalid('unknown option "onerror"'));
  });

  it('throws for an unknown option of retries', () => {
    expect(thrownBy(withOptions({ retries: { limit: 1, delay: 5 } }))).toEqual(
      invalid('^retries: unknown option "delay"; there are factor, jitter, limit, maxDelay, minDelay$'),
    );
  });

  it('throws for invalid options that are inherited or computed, since it reads those as well', () => {
    class Options {
      get timeout(): number {
        return -5;
      }
    }
    expect(thrownBy(withOptions(new Options()))).toEqual(invalid('"timeout" must be .+, not -5$'));
    expect(thrownBy(withOptions(Object.create({ onError: 'log' })))).toEqual(
      invalid('"onError" must be .+, not \'log\'$'),
    );
  });

  it('shows a long value shortened', () => {
    const error = thrownBy(withOptions({ when: 'x'.repeat(10_000) }));
    expect(error).toEqual(invalid('"when" must be'));
    expect((error as Error).message.length).toBeLessThan(250);
  });

  it.each(Object.entries(hostileErrors).filter(([, make]) => make() !== undefined))(
    'throws its own error for an option that is %s',
    (_name, make) => {
      expect(thrownBy(withOptions({ stopOnError: make() }))).toEqual(
        invalid('"stopOnError" must be true or false, not '),
      );
    },
  );

  it.each(goodOptions)('takes %p', (options) => {
    expect(backgroundTasks(options)).toBeInstanceOf(Function);
  });

  it('takes no options', () => {
    expect(backgroundTasks()).toBeInstanceOf(Function);
    expect(backgroundTasks(undefined)).toBeInstanceOf(Function);
  });

  it('takes options without a prototype, and frozen ones', () => {
    const options: BackgroundTasksOptions = Object.assign(Object.create(null), { timeout: 5 });
    expect(backgroundTasks(options)).toBeInstanceOf(Function);
    expect(backgroundTasks(Object.freeze({ timeout: 5 }))).toBeInstanceOf(Function);
  });
});

describe('promise 14: fail early, in task()', () => {
  it.each(badTaskOptions)('throws for %s: %p', (name, value, shown) => {
    const error = thrownBy(withTaskOptions({ [name]: value }));
    expect(error).toEqual(invalid(`^task\\(\\): "${name}" must be .+, not `));
    expect((error as Error).message.endsWith(`, not ${shown}`)).toBe(true);
  });

  it.each(noOptions)('throws for what are no options: %p', (options) => {
    expect(thrownBy(withTaskOptions(options))).toEqual(invalid('^task\\(\\): the options must be an object, not '));
  });

  it.each(['logger', 'stopOnError', 'concurrency', 'onError'])('throws for %s, an option of the middleware', (name) => {
    expect(thrownBy(withTaskOptions({ [name]: undefined }))).toEqual(invalid(`^task\\(\\): unknown option "${name}"`));
  });

  it.each(goodTaskOptions)('takes %p', (options) => {
    expect(task('name', nothing, options)).toBeInstanceOf(Function);
  });
});

describe('fail early, in close()', () => {
  it.each<[unknown, string]>([
    [{ timeout: -1 }, '"timeout" must be .+, not -1$'],
    [{ timeout: '5' }, '"timeout" must be .+, not \'5\'$'],
    [{ timeout: Number.NaN }, '"timeout" must be .+, not NaN$'],
    [{ deadline: 5 }, 'unknown option "deadline"; there are timeout$'],
    [5, 'the options must be an object, not 5$'],
    [null, 'the options must be an object, not null$'],
  ])('rejects for %p, and closes nothing', async (options, message) => {
    const middleware = backgroundTasks();
    await expect(middleware.close(options as { timeout: number })).rejects.toEqual(invalid(`^close\\(\\): ${message}`));
    await expect(middleware.close()).resolves.toEqual({ succeeded: 0, failed: 0, abandoned: [] });
  });

  it.each([{}, { timeout: 0 }, { timeout: 5 }, { timeout: Number.POSITIVE_INFINITY }, { timeout: undefined }])(
    'takes %p',
    async (options) => {
      await expect(backgroundTasks().close(options)).resolves.toEqual({ succeeded: 0, failed: 0, abandoned: [] });
    },
  );
});
