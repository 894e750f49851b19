import * as clock from '../../lib/clock.js';
import { idOf, knownId, newId, timeOfId } from '../../lib/engine/id.js';

test('newId() makes UUIDs of version 7, each another one, which hold the time', () => {
  const before = Date.now();
  const ids = [newId(), newId()];
  expect(new Set(ids).size).toBe(2);
  for (const id of ids) {
    expect(id).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
    expect(timeOfId(id)?.getTime()).toBeGreaterThanOrEqual(before);
    expect(timeOfId(id)?.getTime()).toBeLessThanOrEqual(Date.now());
  }
});

test('newId() makes ids that increase, also many in one millisecond, and where the clock goes back a little', () => {
  const now = jest.spyOn(clock, 'wallClockTime').mockReturnValue(1_800_000_000_000);
  const ids = Array.from({ length: 10_000 }, newId);
  now.mockReturnValue(1_799_999_995_000);
  ids.push(newId());
  expect(ids).toEqual([...new Set(ids)].sort());
  expect(Number(timeOfId(ids.at(-1) ?? ''))).toBeLessThanOrEqual(1_800_000_000_003);
  now.mockReturnValue(1_799_000_000_000); // It has been set.
  expect(timeOfId(newId())).toEqual(new Date(1_799_000_000_000));
  now.mockRestore();
});

test('timeOfId() knows nothing of an id that was made otherwise', () => {
  const made = newId();
  for (const id of ['0f8fad5b-d9cb-469f-a165-70867728950e', 'x', '', `0${made}`, `${made}0`, made.slice(1)]) {
    expect(timeOfId(id)).toBeUndefined();
  }
});

const id = '0f8fad5b-d9cb-469f-a165-70867728950e';

test.each([
  [id, id],
  [id.toUpperCase(), id],
  [`x${id}`, undefined],
  [`${id}x`, undefined],
  [id.slice(1), undefined],
  [id.replaceAll('-', ''), undefined],
  ['', undefined],
  [undefined, undefined],
])('knownId(%j)', (given, known) => {
  expect(knownId(given)).toBe(known);
});

test('idOf() makes the same id for a time and a name, and another one for another of either', () => {
  const made = idOf(1_800_000_000_000, 'nightly');
  expect(made).toMatch(/^[\da-f]{8}-[\da-f]{4}-7[\da-f]{3}-[89ab][\da-f]{3}-[\da-f]{12}$/);
  expect(idOf(1_800_000_000_000, 'nightly')).toBe(made);
  expect(timeOfId(made)).toEqual(new Date(1_800_000_000_000));
  expect(idOf(1_800_000_000_001, 'nightly')).not.toBe(made);
  expect(idOf(1_800_000_000_000, 'hourly')).not.toBe(made);
});
