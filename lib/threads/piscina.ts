// piscina, as far as it is used here. Its own types do not compile with exactOptionalPropertyTypes.

import type { EventEmitter } from 'node:events';
import type { ResourceLimits, SHARE_ENV, Worker } from 'node:worker_threads';
import type { CallMessage, Reply } from './messages.js';

export interface PiscinaOptions {
  /** The program of the threads. */
  readonly filename: string;
  /** The function that it exports. */
  readonly name: string;
  readonly minThreads: number;
  readonly maxThreads: number;
  readonly idleTimeout: number;
  readonly atomics: 'disabled';
  readonly recordTiming: boolean;
  readonly workerData: SharedArrayBuffer;
  readonly resourceLimits?: ResourceLimits;
  readonly env?: NodeJS.ProcessEnv | typeof SHARE_ENV;
  readonly argv?: readonly string[];
  readonly execArgv?: readonly string[];
}

export interface PiscinaPool extends EventEmitter {
  readonly threads: readonly Worker[];
  /** The signal may be any emitter of `abort`. Then the thread is told to end, and the call rejects at once. */
  run(message: CallMessage, options: { readonly signal: EventEmitter }): Promise<Reply>;
  destroy(): Promise<void>;
}

export const { Piscina }: { readonly Piscina: new (options: PiscinaOptions) => PiscinaPool } = require('piscina');
