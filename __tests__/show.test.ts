import { inspect } from 'node:util';
import { show } from '../lib/show';

it.each<[unknown, string]>([
  [undefined, 'undefined'],
  ['text', "'text'"],
  ['x'.repeat(81), `'${'x'.repeat(80)}'... 1 more character`],
  [{ a: { b: 1 } }, '{ a: [Object] }'],
  [Promise.resolve('secret'), 'a promise'],
])('show(%p)', (value, shown) => {
  expect(show(value)).toBe(shown);
});

it('show() of a value that throws when it is looked at', () => {
  const value = {
    [inspect.custom]() {
      throw new Error('do not look');
    },
  };
  expect(show(value)).toBe('a value that throws when it is looked at');
});
