// How long a client is willing to wait, by its header Prefer (RFC 7240).

import { preferredWait } from '../../lib/http/prefer.js';

it.each([
  ['wait=10', 10],
  ['wait = 10', 10],
  ['WAIT=10', 10],
  ['wait="10"', 10],
  ['wait=10; parameter', 10],
  ['respond-async, wait=100', 100],
  ['respond-async,wait=100', 100],
  ['return=minimal; foo="a, wait=7", wait=9', 9],
  ['foo="\\", wait=7", wait=9', 9],
  ['wait=1, wait=2', 1],
  ['wait=0', 0],
  [['wait=3', 'wait=4'], 3],
])('%j: %d', (header, seconds) => {
  expect(preferredWait(header)).toBe(seconds);
});

it.each([
  undefined,
  '',
  'wait',
  'wait=',
  'wait=-1',
  'wait=1.5',
  'wait=ten',
  'await=10',
  'wait=10s',
  'wait="10',
  'foo="wait=10',
  'foo="wait=10"',
  ',,;="\\',
])('%j is ignored', (header) => {
  expect(preferredWait(header)).toBeUndefined();
});

it('takes no longer for a header that is made to be slow', () => {
  const parts = ['"\\', 'wait="', 'wait= ', 'a"b",'].map((part) => part.repeat(5000));
  for (const header of [...parts, `wait=1${' '.repeat(50_000)}x`]) {
    const start = performance.now();
    preferredWait(header);
    expect(performance.now() - start).toBeLessThan(1000);
  }
});
