// Timers and clocks, taken when this module is loaded: fake timers that a test installs later (jest, vitest, sinon, node:test)
// neither stop nor hurry the tasks. sinon and node:test patch node:timers itself, so looking them up at each call is not enough.

import { performance } from 'node:perf_hooks';
import timers from 'node:timers';
import timersPromises from 'node:timers/promises';

export const { setTimeout, clearTimeout, setInterval, clearInterval, setImmediate, clearImmediate } = timers;

/** Resolves after so many ms. */
export const sleep = timersPromises.setTimeout;

/** Resolves in the next turn of the event loop. */
export const nextTurn = timersPromises.setImmediate;

/** In ms since the process started. Setting the clock of the machine does not change it. */
export const monotonicTime: () => number = performance.now.bind(performance);

/** In ms since 1970, by the clock of the machine. */
export const wallClockTime: () => number = Date.now.bind(Date);
