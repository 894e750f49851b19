// What pg-boss stores of a task, and what its counters tell.

import { isGivenUp, isSuspect } from '../../engine/deaths.js';
import type { Backoff } from '../../task/retry.js';

/** The data of a job. */
export interface StoredMessage extends Counters {
  readonly name: string;
  /** JSON inside of JSON, since PostgreSQL's jsonb holds neither NUL nor half a surrogate pair. */
  readonly args: string;
  readonly timeout: number | undefined;
  readonly retries: Backoff | undefined;
  /** JSON. */
  readonly headers?: string | undefined;
  /** JSON. The column has a hash of it. */
  readonly key?: string | undefined;
}

/** Absent is 0: an earlier release has stored fewer of them. */
export interface Counters {
  readonly unused?: number;
  readonly failed?: number;
  readonly dropped?: number;
  readonly alone?: number;
}

export interface TakenJob {
  readonly id: string;
  /** Of a job that somebody else has made it may be anything. */
  readonly data: StoredMessage | null;
  /** With the id it names this claim: what came later is not touched by its holder. */
  readonly retryCount: number;
  /** The name, of a job that the engine has made. */
  readonly groupId?: string | null;
  /** {@link cancelledTier}, or null. */
  readonly groupTier?: string | null;
}

/**
 * Marks a job that is to be cancelled: nothing else makes use of this column here, it is read without the data, and what pg-boss
 * itself does to a job keeps it.
 */
export const cancelledTier = 'cancelled';

/**
 * Which attempt of its task a job is at, from 1. pg-boss counts how often it was taken, and what came of that is counted in
 * its data:
 *
 * | counter | counts | one more | back |
 * |---|---|---|---|
 * | `retryCount`, a column | how often it was taken, without the first time | when it is taken | |
 * | `unused` | how often it was taken and not begun | when it is put back | |
 * | `failed` | failed attempts, which `retries` limits | when a failure is stored | to 0 by `retry()` |
 * | `dropped` | other attempts that tell nothing against the task: `close()` has given them back, or a later one failed, which its worker lived to tell | when that is stored | to all that were by `retry()` |
 * | `alone` | attempts that began alone, and whose worker has died since | when one begins | to 0 by a failure, by 1 when it is given back |
 */
export function attemptOf(retryCount: number, unused = 0): number {
  return retryCount + 1 - unused;
}

/** How many workers have died while they ran it, since one lived to tell that it failed. */
export function deathsOf({ retryCount, data }: TakenJob): number {
  const { unused, failed = 0, dropped = 0 } = data ?? {};
  return attemptOf(retryCount, unused) - 1 - failed - dropped;
}

/** Unless it is given up. */
export function mustRunAlone(job: TakenJob): boolean {
  return isSuspect(deathsOf(job)) && !isGivenUp(job.data?.alone ?? 0);
}
