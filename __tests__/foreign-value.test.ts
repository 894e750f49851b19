import { inspect } from 'node:util';
import { runInNewContext } from 'node:vm';
import { inspectShort, isError, isGeneratorFunction } from '../lib/foreign-value';
import { hostileErrors } from './fixtures/hostile';

it.each<[unknown, string]>([
  [undefined, 'undefined'],
  ['text', "'text'"],
  ['x'.repeat(81), `'${'x'.repeat(80)}'... 1 more character`],
  [{ a: { b: 1 } }, '{ a: [Object] }'],
  [Promise.resolve('secret'), 'a promise'],
])('inspectShort(%p)', (value, shown) => {
  expect(inspectShort(value)).toBe(shown);
});

it('inspectShort() of a value that throws when it is looked at', () => {
  const value = {
    [inspect.custom]() {
      throw new Error('do not look');
    },
  };
  expect(inspectShort(value)).toBe('a value that throws when it is looked at');
});

describe('isError()', () => {
  it.each<[string, unknown]>([
    ['an Error', new Error('boom')],
    ['one of a subclass', new RangeError('boom')],
    ['a DOMException', new DOMException('boom', 'TimeoutError')],
    ['an Error of another realm', runInNewContext('new Error("boom")')],
    ['what is as good as one', { message: 'boom', stack: 'Error: boom' }],
  ])('is true of %s', (_title, value) => {
    expect(isError(value)).toBe(true);
  });

  it.each<[string, unknown]>([
    ['undefined', undefined],
    ['null', null],
    ['a string', 'boom'],
    ['an object', { message: 'boom' }],
    ['a stack that is no string', { stack: 1 }],
    [
      'what throws when it is looked at',
      new Proxy(
        {},
        {
          get() {
            throw new Error('do not look');
          },
        },
      ),
    ],
  ])('is false of %s', (_title, value) => {
    expect(isError(value)).toBe(false);
  });

  it.each(Object.entries(hostileErrors))('throws nothing for %s', (_title, make) => {
    expect(typeof isError(make())).toBe('boolean');
  });
});

it.each<[title: string, value: unknown, is: boolean]>([
  ['a generator function', function* () {}, true],
  ['an async one', async function* () {}, true],
  ['a bound one', function* () {}.bind(null), true],
  ['a bound async one', async function* () {}.bind(null), true],
  ['one of another realm, bound', runInNewContext('(function* () {}).bind(null)'), true],
  ['a function', () => {}, false],
  ['an async function', async () => {}, false],
  ['undefined', undefined, false],
  [
    'a Proxy that throws',
    new Proxy(() => {}, {
      get() {
        throw new Error('do not look');
      },
    }),
    false,
  ],
])('isGeneratorFunction() of %s', (_title, value, is) => {
  expect(isGeneratorFunction(value)).toBe(is);
});
