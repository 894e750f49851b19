import { isUuid, newId, timeOfId } from '../../lib/engine/id.js';

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

test('timeOfId() knows nothing of an id that was made otherwise', () => {
  expect(timeOfId('0f8fad5b-d9cb-469f-a165-70867728950e')).toBeUndefined();
});

test.each([
  ['0f8fad5b-d9cb-469f-a165-70867728950e', true],
  ['0F8FAD5B-D9CB-469F-A165-70867728950E', true],
  ['x0f8fad5b-d9cb-469f-a165-70867728950e', false],
  ['0f8fad5b-d9cb-469f-a165-70867728950ex', false],
  ['0f8fad5b-d9cb-469f-a165-70867728950', false],
  ['0f8fad5bd9cb469fa16570867728950e', false],
  ['', false],
])('isUuid(%j)', (id, is) => {
  expect(isUuid(id)).toBe(is);
});
