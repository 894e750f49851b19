import { isGivenUp, isSuspect } from '../../lib/engine/index.js';

test('a task is a suspect after three deaths of its worker, and given up after two more while it ran alone', () => {
  expect([0, 1, 2, 3, 4].map(isSuspect)).toEqual([false, false, false, true, true]);
  expect([0, 1, 2, 3].map(isGivenUp)).toEqual([false, false, true, true]);
});
