// The program of each thread: piscina loads it, and calls it for each task.

import { parentPort, threadId, workerData } from 'node:worker_threads';
import { nextTurn } from '../clock.js';
import { scope } from '../task/scope.js';
import type { AnyFunction } from '../task/types.js';
import { isSurelyClonable, whyUnclonable } from './clonable.js';
import { boxError } from './error-box.js';
import { functionOf } from './load.js';
import type { CallMessage, Reply, ThreadMessage } from './messages.js';
import { notClonable } from './not-clonable.js';
import { Slots } from './slots.js';
import { ThreadTask } from './thread-task.js';

const slots = new Slots(workerData);
const never = new Promise<never>(() => {});

/** Never rejects: what piscina rejects with is the death of a thread. */
export async function run(message: CallMessage): Promise<Reply> {
  const { call, slot, args, attempt, isTimed } = message;
  await nextTurn(); // What an earlier task has left behind for this moment must not take the call with it.
  if (!slots.begin(slot, call, threadId)) return never; // The thread has been told to end.
  if (isTimed) post({ is: 'begun', call });
  const task = attempt && new ThreadTask(attempt, slots, slot, (json) => post({ is: 'progress', call, json }));
  try {
    const fn = await functionOf(message);
    const value: unknown = await (task === undefined ? apply(fn, args) : scope.run(task, apply, fn, args));
    const progress = task?.end();
    if (isSurelyClonable(value)) return { is: 'value', value, progress };
    postResult(message, value);
    return { is: 'posted', progress };
  } catch (error) {
    return { is: 'error', error: boxError(error), progress: task?.end() };
  }
}

function apply(fn: AnyFunction, args: readonly unknown[]): unknown {
  return Reflect.apply(fn, undefined, args);
}

/** Throws if the value cannot be cloned. */
function postResult({ call, task }: CallMessage, value: unknown): void {
  try {
    post({ is: 'posted', call, value });
  } catch (cause) {
    throw notClonable(task, whyUnclonable(value, 'result'), cause);
  }
}

function post(message: ThreadMessage): void {
  parentPort?.postMessage(message);
}
