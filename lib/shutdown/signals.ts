// The signals that tell a process to end. The first one is a request, the second one an order.

import { monotonicTime } from '../clock.js';

/**
 * Not those of a crash: a handler would keep Node.js from crashing, and it would hang instead
 * (https://nodejs.org/api/process.html#signal-events).
 */
const signals = ['SIGTERM', 'SIGINT', 'SIGQUIT', 'SIGHUP', 'SIGUSR2'] as const;

/**
 * In ms. The same signal again within this time is an echo: what stops a process may send it twice, as Heroku does
 * (https://devcenter.heroku.com/articles/dyno-shutdown-behavior).
 */
const echoTime = 200;

/** Returns what removes the listeners. */
export function onSignals(
  onFirst: (signal: NodeJS.Signals) => void,
  onSecond: (signal: NodeJS.Signals) => void,
): () => void {
  let first: { signal: NodeJS.Signals; at: number } | undefined;

  const listener = (signal: NodeJS.Signals): void => {
    if (first === undefined) {
      first = { signal, at: monotonicTime() };
      onFirst(signal);
    } else if (signal !== first.signal || monotonicTime() - first.at > echoTime) {
      onSecond(signal);
    }
  };

  for (const signal of signals) process.on(signal, listener);
  return () => {
    for (const signal of signals) process.off(signal, listener);
  };
}
