// A worker as its users see it: one driver's worker and the attempts that it runs, closed in the right order.

import { AsyncResource } from 'node:async_hooks';
import { type CloseOptions, readCloseTimeout } from '../close-options.js';
import { ignore } from '../foreign-value.js';
import type { DriverWorker } from './driver.js';
import type { TaskWorker, WorkerHealth } from './engine.js';
import { Failures } from './failures.js';
import { isInTaskOf } from './inside.js';
import type { MessageRunner } from './message-runner.js';
import type { WorkerGroup } from './worker-group.js';

export class EngineWorker implements TaskWorker {
  readonly #runner: MessageRunner;
  readonly #group: WorkerGroup<EngineWorker>;
  /** What a driver starts when it is woken must not keep the AsyncLocalStorage stores of the request that enqueues. */
  readonly #context = new AsyncResource('BackgroundTaskWorker');
  readonly #onClosed: () => void;
  #driverWorker: DriverWorker | undefined = undefined;
  #closing: Promise<void> | undefined = undefined;

  constructor(runner: MessageRunner, group: WorkerGroup<EngineWorker>, onClosed: () => void) {
    this.#runner = runner;
    this.#group = group;
    this.#onClosed = onClosed;
    group.add(this);
  }

  /** The start may take its time: closed meanwhile, the worker is ended as soon as it has begun. */
  async start(begin: () => Promise<DriverWorker> | DriverWorker): Promise<void> {
    const driverWorker = await begin();
    if (this.#closing === undefined) {
      this.#driverWorker = driverWorker;
      return;
    }
    const failures = new Failures();
    await failures.try(() => driverWorker.stop());
    await failures.try(() => driverWorker.close());
    failures.throw('the worker could not be closed in full');
  }

  knows(name: string): boolean {
    return this.#runner.knows(name);
  }

  wake(): void {
    if (this.#closing === undefined) this.#context.runInAsyncScope(() => this.#driverWorker?.wake?.());
  }

  cancelMarked(): Promise<void> {
    return this.#runner.cancelMarked();
  }

  storeFailed(error: unknown): void {
    this.#runner.storeFailed(error);
  }

  scheduleFailed(name: string, error: unknown): void {
    this.#runner.scheduleFailed(name, error);
  }

  health(): WorkerHealth {
    return this.#runner.health();
  }

  async close(options: CloseOptions = {}): Promise<void> {
    const timeout = readCloseTimeout(options);
    this.#closing ??= this.#close();
    this.#runner.dropAfter(timeout);
    if (isInTaskOf(this.#group.engine)) void ignore(this.#closing);
    else await this.#closing;
  }

  async #close(): Promise<void> {
    const failures = new Failures();
    await failures.try(() => this.#driverWorker?.stop());
    await this.#runner.drained();
    await failures.try(() => this.#driverWorker?.close());
    await this.#runner.reported();
    this.#group.delete(this);
    this.#onClosed();
    failures.throw('the worker could not be closed in full');
  }
}
