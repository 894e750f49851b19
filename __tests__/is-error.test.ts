import { runInNewContext } from 'node:vm';
import { isError } from '../lib/is-error';
import { hostileErrors } from './fixtures/hostile';

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
