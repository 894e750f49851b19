// The linked set against a Set, over random sequences of adds and deletes.

import fc from 'fast-check';
import { type Linkable, LinkedSet } from '../../lib/response/linked-set';

class Item implements Linkable<Item> {
  newer: Item | undefined = undefined;
  older: Item | undefined = undefined;
  isLinked = false;
}

describe('a linked set', () => {
  it('holds what a Set holds, in the same order, whatever was added and deleted', () => {
    const call = fc.record({ isAdd: fc.boolean(), index: fc.nat({ max: 4 }) });
    fc.assert(
      fc.property(fc.array(call), (calls) => {
        const items = Array.from({ length: 5 }, () => new Item());
        const set = new LinkedSet<Item>();
        const model = new Set<Item>();
        for (const { isAdd, index } of calls) {
          const item = items[index] as Item;
          if (isAdd) {
            set.add(item);
            model.add(item);
          } else {
            set.delete(item);
            model.delete(item);
          }
          expect(set.toArray()).toEqual([...model]);
          expect(set.toArray().every((value, place) => value === [...model][place])).toBe(true);
        }
      }),
    );
  });

  it('keeps nothing of what has left it', () => {
    const [first, second, third] = [new Item(), new Item(), new Item()];
    const set = new LinkedSet<Item>();
    for (const item of [first, second, third]) set.add(item);
    set.delete(second);
    expect(second).toEqual(new Item());
    set.delete(third);
    set.delete(first);
    expect([first, third]).toEqual([new Item(), new Item()]);
  });
});
