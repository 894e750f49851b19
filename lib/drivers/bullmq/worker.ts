// A worker on BullMQ.

import { DelayedError, type Job, type Telemetry, UnrecoverableError, Worker } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import { nextTurn } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import { givenUpError, isGivenUp, isSuspect } from '../../engine/deaths.js';
import type { DriverWorker } from '../../engine/driver.js';
import { parseHeaders } from '../../engine/headers.js';
import { MessageRunner } from '../../engine/message-runner.js';
import type { AttemptOutcome, StoredMessage as ReceivedMessage } from '../../engine/run.js';
import { serializeError, serializeResult } from '../../engine/serialize.js';
import { Connection } from './connection.js';
import { type Failure, HeldJob } from './held-job.js';
import { attemptOf, type StoredMessage } from './job.js';
import { Names } from './names.js';
import { Refusals } from './refusals.js';
import { Scripts } from './scripts/index.js';

/** In ms. */
export interface Timing {
  /** For so long after it was last heard of, a worker that died holds its tasks. */
  readonly lockDuration: number;
  readonly lockRenewTime: number;
  /** So often workers look for tasks of dead ones. */
  readonly stalledInterval: number;
}

export interface Settings extends Timing {
  /** BullMQ's own. */
  readonly telemetry?: Telemetry;
}

export const defaultTiming: Timing = { lockDuration: 15_000, lockRenewTime: 5000, stalledInterval: 2500 };

const settings = {
  maxStalledCount: Number.MAX_SAFE_INTEGER, // The limit is kept here, where it is reported.
  runRetryDelay: 1000,
};

export class BullmqWorker implements DriverWorker {
  readonly runner: MessageRunner;
  /** Those of this driver, this one included: each runs the others' tasks in its slots, as long as they have slots left too. */
  readonly #workers: Set<BullmqWorker>;
  readonly #worker: Worker<StoredMessage, string>;
  readonly #connection: Connection;
  readonly #scripts: Scripts;
  readonly #names: Names;
  readonly #refusals: Refusals;
  /** Attempts at tasks of other workers that run in slots of this one. */
  readonly #lent = new Set<Promise<unknown>>();
  /** Resolves once what has ended is stored; undefined while tasks are taken. */
  #paused: Promise<void> | undefined = undefined;
  #ended: Promise<void> | undefined = undefined;

  constructor(queue: string, options: RedisOptions, own: Settings, runner: MessageRunner, workers: Set<BullmqWorker>) {
    this.runner = runner;
    this.#workers = workers.add(this);
    this.#connection = new Connection({ ...options, enableOfflineQueue: true, maxRetriesPerRequest: null });
    this.#worker = new Worker(queue, (job, token) => this.#run(job, token), {
      ...settings,
      ...own,
      autorun: false,
      connection: this.#connection,
      concurrency: Math.min(runner.concurrency, Number.MAX_SAFE_INTEGER),
    });
    this.#scripts = new Scripts(this.#connection, (type) => this.#worker.toKey(type));
    const nameKeyOf = (name: string): string => this.#worker.toKey(`tasks:${name}`);
    this.#names = new Names(this.#connection, runner.names.map(nameKeyOf), () => {
      if (this.#worker.isRunning() && !this.#worker.isPaused()) runner.polled();
    });
    this.#refusals = new Refusals(runner, this.#names, nameKeyOf, () => this.#adjust());
    this.#worker.on('error', () => {}); // BullMQ needs a listener. Why a start fails the connection knows.
    this.#worker.on('failed', (job, error) => {
      if (job?.finishedOn === undefined) return;
      const info = { id: job.id ?? '', name: job.name, attempt: attemptOf(job), json: job.data?.args };
      const teller = 'runner' in error && error.runner instanceof MessageRunner ? error.runner : runner;
      teller.report(info, 'cause' in error ? error.cause : error);
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
    const onError = (error: unknown): void => {
      if (this.#paused === undefined && !isLostLock(error)) this.runner.storeFailed(error);
    };
    this.#worker.on('error', onError);
    this.#worker.run().catch(onError);
  }

  stop(): void {
    this.#paused = this.#worker.pause();
    this.#paused.catch(() => {}); // close() looks at it.
  }

  /** Others' tasks go on in its slots. What cannot be stored, since Redis is away, runs again elsewhere. */
  async close(): Promise<void> {
    const ended = this.ended();
    await withDeadline(() => Promise.allSettled([...this.#workers].map((worker) => worker.#flushed()))).catch(() => {});
    if (this.#lent.size === 0) await ended;
  }

  /** Resolves once all is stored that has ended in its slots, other workers' tasks too: Redis answers in order. */
  async #flushed(): Promise<void> {
    await nextTurn();
    await this.#connection.ping();
  }

  /** To be called after {@link stop}. Resolves once its slots are empty and its connections closed. */
  ended(): Promise<void> {
    this.#ended ??= Promise.all(this.#lent).then(async () => {
      await withDeadline(async () => this.#paused).catch(() => {}); // While Redis is away, a pause has no end.
      await this.#end();
    });
    return this.#ended;
  }

  async #end(): Promise<void> {
    this.#workers.delete(this);
    this.#names.close();
    const closed = this.#worker.close(true);
    this.#connection.finish();
    await closed;
  }

  async #run(job: Job<StoredMessage>, token = ''): Promise<string> {
    const { id = '', name, data, stalledCounter } = job;
    const held = new HeldJob(job, token, this.#connection, this.#scripts, this.#worker.toKey(id));
    if (data?.unused !== undefined && data.unused > 0) await held.adopt(); // Somebody else may have made it, without data.
    if (this.#paused !== undefined) return held.putBack();
    if (await held.isCancelled()) throw new DelayedError();
    const runner = this.#freeRunnerOf(name);
    if (runner === undefined) return this.#refusals.refuse(held);
    const message = messageOf(job, runner);
    const running = runner.run(message, isSuspect(stalledCounter) ? () => held.beginAlone() : undefined);
    if (runner !== this.runner) this.#lend(running);
    this.#adjustAll();
    const outcome = await running;
    this.#adjustAll();
    if (outcome.state === 'succeeded') return serializeResult(outcome.result) ?? '';
    if (outcome.state === 'failed' && outcome.retryIn === undefined && !(await held.isMarked())) {
      throw failed(job, outcome.error, runner);
    }
    if (outcome.state === 'unused' && isGivenUp(held.timesAlone)) {
      await held.unbegun();
      throw failed(job, givenUpError(name, held.timesAlone), runner);
    }
    return this.#leave(held, outcome);
  }

  /** Of a task that this worker does not end, or not as BullMQ does. */
  #leave(held: HeldJob, outcome: AttemptOutcome): Promise<never> {
    switch (outcome.state) {
      case 'failed':
        return held.retryIn(outcome.retryIn ?? 0, failureOf(outcome.error));
      case 'cancelled':
        return held.endAsCancelled();
      case 'unused':
        return held.putBack();
      default:
        return held.giveBack();
    }
  }

  #freeRunnerOf(name: string): MessageRunner | undefined {
    for (const { runner } of [this, ...this.#workers]) if (runner.free > 0 && runner.knows(name)) return runner;
    return undefined;
  }

  #lend(running: Promise<unknown>): void {
    this.#lent.add(running);
    void running.then(() => this.#lent.delete(running));
  }

  #adjustAll(): void {
    for (const worker of this.#workers) worker.#adjust();
  }

  #adjust(): void {
    if (this.#worker.concurrency !== this.#concurrency) this.#worker.concurrency = this.#concurrency;
  }

  /** BullMQ takes no other task while there is one and this is 1. */
  get #concurrency(): number {
    return this.runner.isBlocked || this.#refusals.isYielding
      ? 1
      : Math.min(this.runner.concurrency, Number.MAX_SAFE_INTEGER);
  }
}

/** Redis has answered. It is that of a task which has been put back a moment before, or which another worker has by now. */
function isLostLock(error: unknown): boolean {
  return error instanceof Error && error.message.startsWith('could not renew lock for job');
}

/** Somebody else may have made or changed the job: then no attempt will help. */
function messageOf(job: Job<StoredMessage>, runner: MessageRunner): ReceivedMessage {
  const { id = '', name, attemptsMade: failures } = job;
  try {
    const { args, timeout, retries, headers } = job.data;
    return {
      id,
      name,
      attempt: attemptOf(job),
      args: JSON.parse(args),
      timeout,
      retries,
      failures,
      headers: parseHeaders(headers),
    };
  } catch (error) {
    throw failed(job, error, runner);
  }
}

/** BullMQ keeps the message of an error, and its stack in a list of its own. */
function failed(job: Job, error: unknown, runner: MessageRunner): Error {
  const { reason, stack = '' } = failureOf(error);
  job.stacktrace = []; // Only the last one is kept.
  return Object.assign(new UnrecoverableError(reason), { cause: error, stack, runner });
}

function failureOf(error: unknown): Failure {
  const { name, message, stack } = serializeError(error);
  return { reason: JSON.stringify({ name, message }), stack };
}
