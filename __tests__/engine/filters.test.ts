// What list(), retry() and remove() take.

import { readPage, readSelection } from '../../lib/engine/filters.js';
import type { ListFilter, TaskFilter } from '../../lib/index.js';

const id = '0f8fad5b-d9cb-469f-a165-70867728950e';
const states = ['queued', 'running', 'succeeded', 'failed', 'cancelled'] as const;

describe('a page', () => {
  const pages: [ListFilter, object | undefined][] = [
    [{}, { limit: 50, offset: 0 }],
    [
      { state: undefined, name: undefined, after: undefined },
      { limit: 50, offset: 0 },
    ],
    [
      { state: 'failed', name: 'a', limit: 1000, offset: 7 },
      { state: 'failed', name: 'a', limit: 1000, offset: 7 },
    ],
    [
      { limit: 1, after: id.toUpperCase() },
      { limit: 1, offset: 0, after: id },
    ],
    [{ after: 'x' }, undefined],
  ];
  it.each(pages)('%j', (filter, page) => {
    expect(readPage(filter)).toStrictEqual(page);
  });

  const refused: [object, string][] = [
    [{ state: 'done' }, `"state" must be one of ${states.join(', ')}, not 'done'`],
    [{ name: '' }, '"name" must be a string that is not empty'],
    [{ limit: 0 }, '"limit" must be a whole number from 1 to 1000, not 0'],
    [{ limit: 1001 }, '"limit" must be a whole number from 1 to 1000, not 1001'],
    [{ limit: 1.5 }, '"limit" must be a whole number'],
    [{ after: 7 }, '"after" must be a string'],
    [{ offset: -1 }, '"offset" must be'],
    [{ states: 'failed' }, 'unknown option "states"'],
  ];
  it.each(refused)('is refused: %j', (filter, reason) => {
    expect(() => readPage(filter)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(`list(): ${reason}`) }),
    );
  });
});

describe('a selection', () => {
  const selections: [string | TaskFilter, object | undefined][] = [
    [id, { id }],
    [id.toUpperCase(), { id }],
    ['x', undefined],
    ...states.map((state): [TaskFilter, object] => [{ state }, { state }]),
    [{ name: 'a' }, { name: 'a' }],
    [
      { state: 'failed', name: 'a' },
      { state: 'failed', name: 'a' },
    ],
  ];
  it.each(selections)('%j', (selection, read) => {
    expect(readSelection('retry()', selection)).toStrictEqual(read);
  });

  const empty = 'retry(): give it an id, or a filter with "state" or "name"';
  const refused: [object, string][] = [
    [{}, empty],
    [{ state: undefined }, empty],
    [{ state: 'done' }, 'retry(): "state" must be one of'],
    [{ name: 7 }, 'retry(): "name" must be a string'],
    [{ limit: 5 }, 'retry(): unknown option "limit"'],
  ];
  it.each(refused)('is refused: %j', (selection, message) => {
    expect(() => readSelection('retry()', selection)).toThrow(
      expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining(message) }),
    );
  });
});
