// How an attempt ended, as it is to be written down.

import type { AttemptOutcome } from '../../engine/run.js';
import { serializeResult } from '../../engine/serialize.js';
import type { ReportedTask } from '../../engine/worker-reports.js';
import { type Counters, deathsOf, type StoredMessage, type TakenJob } from './job.js';

export type Ending =
  | { readonly kind: 'completed'; readonly result: string | undefined }
  | { readonly kind: 'failed'; readonly info: ReportedTask; readonly error: unknown; readonly counters?: Counters }
  | { readonly kind: 'cancelled' }
  | PutBack;

/**
 * To be taken again in so many ms, with these counters in place of what they were, after this error, if it was one. What is
 * marked is cancelled instead.
 */
interface PutBack {
  readonly kind: 'put back';
  readonly counters: Counters;
  readonly delay: number;
  readonly error?: unknown;
}

export function endingOf(job: TakenJob, data: StoredMessage, info: ReportedTask, outcome: AttemptOutcome): Ending {
  const { failed = 0, dropped = 0, alone = 0 } = data;
  switch (outcome.state) {
    case 'succeeded':
      return { kind: 'completed', result: serializeResult(outcome.result) };
    case 'cancelled':
      return { kind: 'cancelled' };
    case 'dropped':
      return putBack({ dropped: dropped + 1, alone });
    case 'unused':
      return asIfNotTaken(job);
    case 'failed': {
      const { error, retryIn } = outcome;
      if (retryIn === undefined) return { kind: 'failed', info, error };
      const counters = { failed: failed + 1, dropped: dropped + deathsOf(job), alone: 0 };
      return { ...putBack(counters, Math.ceil(retryIn)), error };
    }
  }
}

export function asIfNotTaken({ data }: TakenJob, delay?: number): Ending {
  const { unused = 0, alone = 0 } = data ?? {};
  return putBack({ unused: unused + 1, alone }, delay);
}

function putBack(counters: Counters, delay = 0): PutBack {
  return { kind: 'put back', counters, delay };
}
