// The program of the threads, in this process: what it does with a call that it may no longer begin.

import { setTimeout as sleep } from 'node:timers/promises';
import { workerData } from 'node:worker_threads';
import { Slots } from '../../lib/threads/slots';
import { run } from '../../lib/threads/worker';

const mockPosted: unknown[] = [];

jest.mock('node:worker_threads', () => ({
  ...jest.requireActual<object>('node:worker_threads'),
  threadId: 7,
  workerData: new SharedArrayBuffer(12),
  parentPort: { postMessage: (message: unknown) => mockPosted.push(message) },
}));

const mockCalled = jest.fn(() => 'ran');
jest.mock('../../lib/threads/load', () => ({ functionOf: async () => mockCalled }));

const slots = new Slots(workerData);
const message = { slot: 0, module: '', exported: '', task: 'resize', args: [], attempt: undefined, isTimed: true };

it('runs a call, and says when it begins', async () => {
  slots.take(0, 5);
  expect(await run({ ...message, call: 5 })).toEqual({ is: 'value', value: 'ran', progress: undefined });
  expect([slots.hasBegun(0, 5), slots.threadOf(0), mockPosted]).toEqual([true, 7, [{ is: 'begun', call: 5 }]]);
});

it("neither runs nor answers a call that is revoked, or whose slot is another one's by now", async () => {
  slots.take(0, 6);
  slots.revoke(0, 6);
  slots.take(0, 8);
  const answers = [run({ ...message, call: 6 }), run({ ...message, call: 7 })];
  expect(await Promise.race([...answers, sleep(50, 'no answer')])).toBe('no answer');
  expect([mockCalled.mock.calls.length, slots.hasBegun(0, 8)]).toEqual([1, false]);
});
