// Answers that are held open for long, and how a shutdown ends them: event streams, and answers that wait for the end of a task.

import type { ServerResponse } from 'node:http';

const endings = new WeakMap<ServerResponse, () => void>();

export function onEndEarly(res: ServerResponse, end: () => void): void {
  endings.set(res, end);
}

/** Ends an answer that is held open, as soon as it is whole. Does nothing for other responses. */
export function endEarly(res: ServerResponse): void {
  endings.get(res)?.();
}

/** Aborted when the client leaves, and when {@link endEarly} is called. */
export function openUntil(res: ServerResponse): AbortController {
  const open = new AbortController();
  const end = (): void => open.abort();
  if (res.closed) end();
  res.once('close', end);
  onEndEarly(res, end);
  return open;
}
