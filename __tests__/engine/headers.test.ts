// The headers of messages, as they are written and as they are read again.

import { parseHeaders, readHeaders } from '../../lib/engine/headers.js';

/** So many bytes of JSON: {"name":"..."}. */
const header = (name: string, bytes: number): string => 'x'.repeat(bytes - JSON.stringify({ [name]: '' }).length);

beforeEach(() => {
  jest.spyOn(process, 'emitWarning').mockImplementation(() => {});
});
afterEach(() => jest.restoreAllMocks());

it('are those that were written, up to 8 kB of JSON', () => {
  expect(readHeaders({ b: '1', a: '2' }, 'mail')).toEqual({ b: '1', a: '2' });
  const full = { a: header('a', 8192) };
  expect(JSON.stringify(full)).toHaveLength(8192);
  expect(readHeaders(full, 'mail')).toEqual(full);
  expect(readHeaders({ a: `${full.a}x` }, 'mail')).toBeUndefined();
  expect(readHeaders({ a: 'é'.repeat(4096) }, 'mail')).toBeUndefined();
});

it('that are too large together are the shortest of them', () => {
  const headers = { short: 'x', long: 'x'.repeat(5000), middle: 'x'.repeat(4000), longest: 'x'.repeat(6000) };
  expect(readHeaders(headers, 'mail')).toEqual({ short: 'x', middle: headers.middle });
});

it.each([[undefined], [null], ['a'], [{}], [{ a: 1 }]])('are none where none were written: %j', (written) => {
  expect(readHeaders(written, 'mail')).toBeUndefined();
});

it('that were left out are told of, once in a process', () => {
  jest.resetModules();
  const fresh = require('../../lib/engine/headers.js') as typeof import('../../lib/engine/headers.js');
  fresh.readHeaders({}, 'mail');
  fresh.readHeaders({ a: 'b' }, 'mail');
  expect(process.emitWarning).not.toHaveBeenCalled();
  fresh.readHeaders({ a: 'b', c: 1 }, 'mail');
  fresh.readHeaders('none', 'other');
  expect(jest.mocked(process.emitWarning).mock.calls).toEqual([
    [
      'headers of a message of task "mail" were left out: they must be strings, together of at most 8 kB',
      'BackgroundTasksWarning',
    ],
  ]);
});

it('that are no object are told of, too', () => {
  jest.resetModules();
  const fresh = require('../../lib/engine/headers.js') as typeof import('../../lib/engine/headers.js');
  fresh.readHeaders('none', 'mail');
  expect(process.emitWarning).toHaveBeenCalledTimes(1);
});

it.each([
  ['{"a":"b"}', { a: 'b' }],
  ['{"a":"b","c":1}', { a: 'b' }],
  ['{}', {}],
  ['"a"', undefined],
  ['{', undefined],
  [undefined, undefined],
  [{ a: 'b' }, undefined],
])('are read from JSON that somebody else may have changed: %j', (json, headers) => {
  expect(parseHeaders(json)).toEqual(headers);
});
