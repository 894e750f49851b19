// A call with a deadline: a store that is away must not keep anybody waiting.

import { clearTimeout, setTimeout } from '../clock.js';

/** How long a store may take to answer, in ms. */
const deadline = 4500;

/**
 * Rejects with what the call rejects with, or with an error once 4.5 s have passed. `expired` is aborted then: a call of
 * several steps looks at it before each of them, so that nothing is stored for somebody who was told that it failed.
 */
export async function withDeadline<T>(call: (expired: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let timer: NodeJS.Timeout | undefined;
  try {
    return await new Promise((resolve, reject) => {
      timer = setTimeout(() => {
        reject(new Error(`no answer within ${deadline} ms`));
        controller.abort();
      }, deadline);
      call(controller.signal).then(resolve, reject);
    });
  } finally {
    clearTimeout(timer);
  }
}
