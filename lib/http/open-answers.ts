// Answers that are held open for long, and how a shutdown ends them: event streams, and answers that wait for the end of a task.

import type { ServerResponse } from 'node:http';

const openAnswers = new WeakMap<object, AbortController>();
/** The responses that are to end as soon as they would be held open. */
const endedEarly = new WeakSet<object>();

/** Ends an answer that is held open, now or later, as soon as it is whole. Does nothing for other responses. */
export function endEarly(res: object): void {
  endedEarly.add(res);
  openAnswers.get(res)?.abort();
}

/** Aborted when the client leaves, and when {@link endEarly} is called. */
export function openUntil(res: ServerResponse): AbortController {
  const open = new AbortController();
  if (res.closed || endedEarly.has(res)) open.abort();
  res.once('close', () => open.abort());
  openAnswers.set(res, open);
  return open;
}
