// The order in which the attempts of a process begin.

import { setImmediate as turn } from 'node:timers/promises';
import { type Start, Starts } from '../../lib/engine/worker-group.js';

let now = 0;
jest.mock('../../lib/clock', () => ({ ...jest.requireActual('../../lib/clock'), monotonicTime: () => now }));

describe('the starts of one process', () => {
  let starts: Starts;
  let begun: string[];
  beforeEach(() => {
    starts = new Starts();
    begun = [];
  });

  /** `ms`: how long it holds the event loop. */
  function add(name: string, { isAlone = false, ms = 0 } = {}): Start {
    const start = {
      isAlone,
      begin: () => {
        begun.push(name);
        now += ms;
      },
    };
    starts.add(start);
    return start;
  }

  it('begin in one turn, and not in that of the call', async () => {
    for (const name of ['a', 'b', 'c']) add(name);
    expect(begun).toEqual([]);
    await turn();
    expect(begun).toEqual(['a', 'b', 'c']);
  });

  it('leave the event loop to others after 5 ms, each time anew', async () => {
    for (const name of ['a', 'b', 'c', 'd', 'e']) add(name, { ms: 3 });
    const each: number[] = [];
    while (begun.length < 5) {
      const before = begun.length;
      await turn();
      each.push(begun.length - before);
    }
    expect(each).toEqual([2, 2, 1]);
  });

  it('wait for what runs alone, which waits for what runs', async () => {
    const first = add('first');
    await turn();
    const alone = add('alone', { isAlone: true });
    expect(starts.isBlocked).toBe(true);
    const last = add('last');
    await turn();
    expect(begun).toEqual(['first']);
    starts.ended(first);
    await turn();
    expect(begun).toEqual(['first', 'alone']);
    expect(starts.isBlocked).toBe(true);
    await turn();
    expect(begun).toEqual(['first', 'alone']);
    starts.ended(alone);
    await turn();
    expect(begun).toEqual(['first', 'alone', 'last']);
    expect(starts.isBlocked).toBe(false);
    starts.ended(last);
  });

  it('wait for one that runs alone also where another one ends that had begun before it', async () => {
    const [first, alone] = [add('first'), add('alone', { isAlone: true })];
    await turn();
    starts.ended(first);
    await turn();
    expect(begun).toEqual(['first', 'alone']);
    add('last');
    await turn();
    expect(begun).toEqual(['first', 'alone']);
    starts.ended(alone);
    await turn();
    expect(begun).toEqual(['first', 'alone', 'last']);
  });
});
