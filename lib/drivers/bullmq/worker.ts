// A worker on BullMQ, and what it and the engine know of each other.

import { DelayedError, type Job, UnrecoverableError, Worker } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import { wallClockTime } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import { givenUpError, mostDeaths } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { serializeError, serializeResult } from '../../engine/serialize.js';
import { type Backoff, retryDelay } from '../../task/retry.js';
import { Connection } from './connection.js';

export interface StoredMessage {
  /** JSON, as it was when enqueue was called. */
  readonly args: string;
  readonly timeout: number | undefined;
  readonly retries: Backoff | undefined;
  /** How often a worker took it and did not begin it. */
  readonly unused: number;
}

/** How many attempts have begun; BullMQ counts how often it was taken. */
export function attemptOf({ attemptsStarted, data }: Job<StoredMessage>): number {
  return attemptsStarted - (data?.unused ?? 0); // Somebody else may have made the job.
}

const settings = {
  // Of a worker that died the lock ends after 15 s, and the next check gives its task to another one.
  lockDuration: 15_000,
  lockRenewTime: 5000,
  stalledInterval: 2500,
  maxStalledCount: Number.MAX_SAFE_INTEGER, // The limit is kept here, where it is reported.
  runRetryDelay: 1000,
  settings: {
    backoffStrategy: (retry: number, _type?: string, _error?: Error, job?: { data: StoredMessage }): number => {
      const retries = job?.data.retries;
      return retries === undefined ? 0 : Math.round(retryDelay(retry, retries));
    },
  },
};

export class BullmqWorker implements DriverWorker {
  readonly #runner: MessageRunner;
  readonly #worker: Worker<StoredMessage, string>;
  readonly #connection: Connection;
  /** Resolves once what has ended is stored; undefined while tasks are taken. */
  #paused: Promise<void> | undefined = undefined;

  constructor(queue: string, options: RedisOptions, runner: MessageRunner) {
    this.#runner = runner;
    this.#connection = new Connection({ ...options, enableOfflineQueue: true, maxRetriesPerRequest: null });
    this.#worker = new Worker(queue, (job, token) => this.#run(job, token), {
      ...settings,
      connection: this.#connection,
      concurrency: Math.min(runner.concurrency, Number.MAX_SAFE_INTEGER),
    });
    this.#worker.on('error', () => {}); // BullMQ needs a listener. Why a start fails the connection knows.
    this.#worker.on('failed', (job, error) => {
      if (job?.finishedOn === undefined) return;
      const info = { id: job.id ?? '', name: job.name, attempt: attemptOf(job) };
      runner.report(info, 'cause' in error ? error.cause : error);
    });
  }

  /** Rejects where Redis is out of reach. */
  async ready(): Promise<void> {
    try {
      await withDeadline(() => this.#worker.waitUntilReady());
    } catch (error) {
      const reason = this.#connection.trouble ?? error;
      await this.#end();
      throw reason;
    }
    this.#worker.on('error', (error) => {
      if (this.#paused === undefined) this.#runner.storeFailed(error);
    });
  }

  stop(): void {
    this.#paused = this.#worker.pause();
    this.#paused.catch(() => {}); // close() looks at it.
  }

  /** A pause ends when all is stored; while Redis is away, never, and what could not be stored runs again elsewhere. */
  async close(): Promise<void> {
    await withDeadline(async () => this.#paused).catch(() => {});
    await this.#end();
  }

  async #end(): Promise<void> {
    await this.#worker.close(true);
    this.#connection.disconnect();
  }

  async #run(job: Job<StoredMessage>, token: string | undefined): Promise<string> {
    const { id = '', name, data } = job;
    const unused = data?.unused ?? 0;
    const attempt = attemptOf(job);
    if (this.#paused !== undefined) return putBack(job, token, 0, unused + 1);
    if (!this.#runner.knows(name)) {
      if (!this.#runner.isKnownHere(name)) this.#runner.reportUnknown({ id, name, attempt });
      return putBack(job, token, unknownDelay(unused), unused + 1);
    }
    if (job.stalledCounter >= mostDeaths) {
      await job.updateData({ ...data, unused: unused + 1 });
      throw failure(givenUpError(name), UnrecoverableError);
    }
    const { timeout } = data;
    const outcome = await this.#runner.run({ id, name, args: JSON.parse(data.args), timeout, attempt });
    switch (outcome.state) {
      case 'succeeded':
        return serializeResult(outcome.result) ?? '';
      case 'dropped':
        return putBack(job, token, 0);
      case 'unused':
        return putBack(job, token, 0, unused + 1);
      case 'failed':
        throw failure(outcome.error, Error);
    }
  }
}

/** ms before it is offered again: soon, since another worker may know it, and later on seldom, since none seems to. */
function unknownDelay(refusals: number): number {
  return refusals < 50 ? Math.min(50 * 2 ** refusals, 500) : 5000;
}

/** Back to the queue without counting as a failure. If that cannot be done, the lock ends and another worker takes it. */
async function putBack(job: Job<StoredMessage>, token: string | undefined, delay: number, unused = 0): Promise<never> {
  try {
    if (unused > 0) await job.updateData({ ...job.data, unused });
    await job.moveToDelayed(wallClockTime() + delay, token);
  } catch {}
  throw new DelayedError();
}

/** What BullMQ keeps of an error is its message. */
function failure(error: unknown, Class: new (message: string) => Error): Error {
  return Object.assign(new Class(JSON.stringify(serializeError(error))), { cause: error, stack: '' });
}

/** Also of a reason that was written by somebody else. */
export function errorOf(failedReason: string): { name: string; message: string } {
  try {
    const { name, message }: { name?: unknown; message?: unknown } = JSON.parse(failedReason);
    if (typeof name === 'string' && typeof message === 'string') return { name, message };
  } catch {}
  return { name: 'Error', message: failedReason };
}
