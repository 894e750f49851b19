// A call with a time limit: a store that is out of reach must not keep its callers waiting.

import { clearTimeout, setTimeout } from '../clock.js';

/** How long a store may take to answer, in ms. */
const deadline = 4500;

/**
 * Rejects as the call does, or after 4.5 s. Then `expired` is aborted: a call of several steps checks it before each of them, so
 * that nothing is stored after its caller has been told that it failed.
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
