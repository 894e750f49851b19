// How long tasks go on before the event loop gets its turn.

import { TimeSlice } from '../lib/time-slice';

jest.mock('../lib/clock', () => require('./fixtures/global-clock'));

let now = 1000;
const slice = new TimeSlice();

beforeEach(() => {
  jest.spyOn(performance, 'now').mockImplementation(() => now);
  slice.begin();
});

afterEach(() => {
  jest.restoreAllMocks();
});

/** How often it is not over, while each look takes so many ms. */
function countLooks(ms: number): number {
  let looks = 0;
  while (!slice.isOver()) {
    looks++;
    now += ms;
  }
  return looks;
}

it('lasts 5 ms, and so does the next one', () => {
  expect(countLooks(1)).toBe(5);
  expect(slice.isOver()).toBe(true);
  slice.begin();
  expect(countLooks(1)).toBe(5);
});

it('is over at the hundredth look at a clock that stands still', () => {
  expect(countLooks(0)).toBe(99);
  slice.begin();
  expect(countLooks(0)).toBe(99);
});

it('goes on where the clock shows each time a few times', () => {
  for (let ms = 0; ms < 4; ms++) {
    for (let look = 0; look < 60; look++) expect(slice.isOver()).toBe(false);
    now++;
  }
});
