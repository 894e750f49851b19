// The queue against an array, over random sequences of pushes and shifts.

import fc from 'fast-check';
import { Queue, type Queueable } from '../../lib/response/queue';

class Item implements Queueable<Item> {
  next: Item | undefined = undefined;
}

describe('a queue', () => {
  it('is first in, first out, whatever the order of pushes and shifts', () => {
    fc.assert(
      fc.property(fc.array(fc.constantFrom('push', 'shift')), (calls) => {
        const queue = new Queue<Item>();
        const model: Item[] = [];
        for (const call of calls) {
          if (call === 'push') {
            const item = new Item();
            queue.push(item);
            model.push(item);
          } else {
            expect(queue.shift()).toBe(model.shift());
          }
          expect(queue.isEmpty).toBe(model.length === 0);
          expect(queue.first).toBe(model[0]);
        }
      }),
    );
  });

  it('releases what has left it: that does not lead to those behind it', () => {
    const queue = new Queue<Item>();
    const first = new Item();
    queue.push(first);
    queue.push(new Item());
    expect(first.next).toBeDefined();
    expect(queue.shift()).toBe(first);
    expect(first.next).toBeUndefined();
  });

  it('takes what has left it again', () => {
    const queue = new Queue<Item>();
    const [first, second] = [new Item(), new Item()];
    queue.push(first);
    queue.push(second);
    const taken = queue.shift();
    if (taken !== undefined) queue.push(taken);
    expect([queue.shift(), queue.shift(), queue.shift()]).toEqual([second, first, undefined]);
  });
});
