// memory(): an engine for tests. It can do all that an engine can, and its clock can be advanced.

import { Engine } from '../engine/create-engine.js';
import type { TaskEngine, WorkerOptions } from '../engine/engine.js';
import { isInTaskOf } from '../engine/inside.js';
import { BackgroundTasksError } from '../errors.js';
import { ignore, inspectShort } from '../foreign-value.js';
import { definitionOf, type RemoteTask, type Task } from '../task/task.js';
import { MemoryDriver, MemoryStore } from './memory-driver.js';

/** What `memory()` returns: an engine that keeps its tasks in this process, with three methods for tests. */
export interface MemoryEngine extends TaskEngine {
  /** The arguments of each task that waits, oldest first. */
  enqueued<A extends readonly unknown[]>(task: Task<A> | RemoteTask<A>): A[];
  /**
   * Runs what is due, one task at a time, and what that enqueues, until nothing is due that these tasks are for. What waits
   * for its time stays: see `advance`. A task that fails is reported as in a worker.
   *
   * Rejects as `work` does, and with `ERR_INVALID_OPTION` inside a task of the engine, for which it would wait.
   */
  drain(tasks: readonly Task[], options?: WorkerOptions): Promise<void>;
  /** Sets the engine's clock forward, by ms. */
  advance(duration: number): void;
}

/**
 * An engine that keeps its tasks in this process, for tests. Its clock is the real one plus what `advance` adds. Without
 * `work()` it opens no timer. `within()` takes any object, and stores at once: it does not see a rollback.
 *
 * @example
 * const engine = memory();
 * await engine.enqueue(sendMail, 'ada@example.com');
 * expect(engine.enqueued(sendMail)).toEqual([['ada@example.com']]);
 * await engine.drain([sendMail]);
 */
export function memory(): MemoryEngine {
  return new Memory(new MemoryStore());
}

export class Memory extends Engine implements MemoryEngine {
  readonly #store: MemoryStore;

  constructor(store: MemoryStore) {
    super(new MemoryDriver(store));
    this.#store = store;
  }

  enqueued<A extends readonly unknown[]>(task: Task<A> | RemoteTask<A>): A[] {
    const definition = definitionOf(task);
    if (definition === undefined) {
      const message = `enqueued(): a task must be made by task(), not ${inspectShort(task)}`;
      throw new BackgroundTasksError('ERR_INVALID_TASK', message);
    }
    return this.#store.table.argsOf(definition.name);
  }

  async drain(tasks: readonly Task[], options: WorkerOptions = {}): Promise<void> {
    if (isInTaskOf(this)) {
      throw new BackgroundTasksError(
        'ERR_INVALID_OPTION',
        'drain(): inside a task of the engine it would wait for itself',
      );
    }
    await this.enqueueDue();
    this.#store.isDraining = true;
    try {
      const worker = await this.work(tasks, { concurrency: 1, ...options });
      const names = new Set(tasks.map(({ name }) => name));
      await this.#store.settled((name) => names.has(name));
      await worker.close();
    } finally {
      this.#store.isDraining = false;
    }
  }

  advance(duration: number): void {
    if (typeof duration !== 'number' || !(duration >= 0 && duration < Number.POSITIVE_INFINITY)) {
      const message = `advance(): the duration must be milliseconds from 0, not ${inspectShort(duration)}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
    }
    this.#store.advance(duration);
    // A worker looks for slots once a second, and reports what this meets.
    if (this.#store.workers.size > 0) void ignore(this.enqueueDue());
  }
}
