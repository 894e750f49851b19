// createEngine(): the engine that users hold, made of a driver. It checks, serializes, sets deadlines, wakes workers and closes,
// once for all drivers.

import { BackgroundTasksError } from '../errors.js';
import { ignore, inspectShort, isObject } from '../foreign-value.js';
import { type Check, checkOptions, isBoolean } from '../options.js';
import { scope } from '../task/scope.js';
import type { SerializableArguments } from '../task/serializable.js';
import type { RemoteTask, Task } from '../task/task.js';
import { Calls } from './calls.js';
import type { EngineDriver } from './driver.js';
import type {
  EngineStats,
  GetOptions,
  ListFilter,
  ScheduleOptions,
  TaskEngine,
  TaskFilter,
  TaskRecord,
  TaskSchedule,
  TaskWorker,
  TransactionEnqueuer,
  WatchOptions,
  WorkerOptions,
} from './engine.js';
import { Failures } from './failures.js';
import { readPage, readSelection } from './filters.js';
import { knownId } from './id.js';
import { Inserts } from './inserts.js';
import { isInTaskOf } from './inside.js';
import { messageOf } from './message.js';
import { MessageRunner, type RunStore } from './message-runner.js';
import { Schedules } from './schedules.js';
import { Watchers } from './watchers.js';
import { EngineWorker } from './worker.js';
import { WorkerGroup } from './worker-group.js';

/** See "Writing an engine" in docs/engines.md. */
export function createEngine(driver: EngineDriver): TaskEngine {
  return new Engine(driver);
}

const notRead = 'the task could not be read';
const notStarted = 'the worker could not be started';
const notChanged = 'the task could not be changed';

/** Not for authors of engines: {@link createEngine} is. */
export class Engine implements TaskEngine {
  readonly #driver: EngineDriver;
  readonly #calls: Calls;
  readonly #inserts: Inserts;
  readonly #watchers: Watchers;
  readonly #schedules: Schedules;
  readonly #workers = new WorkerGroup<EngineWorker>(this);
  #closing: Promise<void> | undefined = undefined;

  constructor(driver: EngineDriver) {
    this.#driver = driver;
    this.#calls = new Calls(driver);
    this.#inserts = new Inserts(driver, driver, this.#calls.make.bind(this.#calls));
    this.#watchers = new Watchers((ids, result) => this.#find(ids, result));
    this.#schedules = new Schedules(
      driver,
      this.#calls,
      () => this.#wake(),
      ({ schedule, error }) => {
        for (const worker of this.#workers) {
          if (schedule === undefined) worker.storeFailed(error);
          else worker.scheduleFailed(schedule, error);
        }
      },
    );
  }

  async enqueue<A extends readonly unknown[]>(
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<{ id: string }> {
    const id = await this.#inserts.one(task, args);
    this.#wake();
    return { id };
  }

  async enqueueMany<A extends readonly unknown[]>(
    task: Task<A> | RemoteTask<A>,
    argLists: readonly Readonly<SerializableArguments<A>>[],
  ): Promise<{ id: string }[]> {
    const ids = await this.#inserts.many(task, argLists);
    this.#wake();
    return ids.map((id) => ({ id }));
  }

  within(transaction: object): TransactionEnqueuer {
    const begin = this.#calls.method('within', 'within()').bind(this.#driver);
    if (!isObject(transaction)) {
      const message = `within(): the argument must be a transaction, not ${inspectShort(transaction)}`;
      throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
    }
    const inserts = new Inserts(this.#driver, begin(transaction), this.#calls.within.bind(this.#calls));
    return {
      enqueue: async (task, ...args) => ({ id: await inserts.one(task, args) }),
      enqueueMany: async (task, argLists) => (await inserts.many(task, argLists)).map((id) => ({ id })),
    };
  }

  async ready(): Promise<void> {
    await this.#calls.make('it is not ready', async (expired) => this.#driver.prepare?.(expired));
  }

  async work(tasks: readonly Task[], options?: WorkerOptions): Promise<TaskWorker> {
    const runner = new MessageRunner(tasks, options, this.#workers, this, storeOf(this.#driver));
    const begin = this.#calls.method('work', 'work()').bind(this.#driver, runner);
    const worker = new EngineWorker(runner, this.#workers, () => {
      if (this.#workers.size === 0) this.#schedules.stop();
    });
    try {
      await this.#calls.make(notStarted, () => worker.start(begin));
    } catch (error) {
      await worker.close();
      throw error;
    }
    if (this.#closing !== undefined) {
      await worker.close();
      throw this.#calls.closedError(notStarted);
    }
    this.#schedules.start();
    return worker;
  }

  async get(id: string, options: GetOptions = {}): Promise<TaskRecord | undefined> {
    checkOptions('get()', options, { result: isBoolean });
    const [record] = await this.#find([id], options.result ?? true);
    return record;
  }

  async list(filter: ListFilter = {}): Promise<TaskRecord[]> {
    const page = readPage(filter);
    const list = this.#calls.method('list', 'list()').bind(this.#driver);
    return this.#calls.make('the tasks could not be read', async (expired) => (page ? list(page, expired) : []));
  }

  async stats(): Promise<EngineStats> {
    const stats = this.#calls.method('stats', 'stats()').bind(this.#driver);
    return this.#calls.make('the tasks could not be counted', stats);
  }

  async cancel(id: string): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    const cancel = this.#calls.method('cancel', 'cancel()').bind(this.#driver);
    const known = knownId(id);
    const answer = await this.#calls.make(notChanged, async (expired) => (known ? cancel(known, expired) : undefined));
    // It may run here.
    if (answer === 'signalled') for (const worker of this.#workers) void worker.cancelMarked();
    return answer;
  }

  async retry(selection: string | TaskFilter): Promise<number> {
    const retry = this.#calls.method('retry', 'retry()').bind(this.#driver);
    const selected = readSelection('retry()', selection);
    const count =
      selected === undefined ? 0 : await this.#calls.count(notChanged, (expired) => retry(selected, expired));
    this.#wake();
    return count;
  }

  async promote(id: string): Promise<boolean> {
    const promote = this.#calls.method('promote', 'promote()').bind(this.#driver);
    const known = knownId(id);
    const isPromoted = await this.#calls.make(notChanged, async (expired) =>
      known === undefined ? false : promote(known, expired),
    );
    this.#wake();
    return isPromoted;
  }

  async remove(selection: string | TaskFilter): Promise<number> {
    const remove = this.#calls.method('remove', 'remove()').bind(this.#driver);
    const selected = readSelection('remove()', selection);
    return selected === undefined ? 0 : this.#calls.count(notChanged, (expired) => remove(selected, expired));
  }

  watch(id: string, options: WatchOptions = {}): AsyncIterable<TaskRecord> {
    checkOptions('watch()', options, { result: isBoolean, signal: isSignal });
    this.#calls.method('find', 'watch()');
    return this.#watchers.watch(String(id).toLowerCase(), options);
  }

  async schedule<A extends readonly unknown[]>(
    name: string,
    when: ScheduleOptions,
    task: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<void> {
    await this.#schedules.put(name, when, messageOf(task, args, 'schedule()'));
  }

  unschedule(name: string): Promise<boolean> {
    return this.#schedules.delete(name);
  }

  schedules(): Promise<TaskSchedule[]> {
    return this.#schedules.list();
  }

  /** Enqueues what the schedules have due. A worker does it by itself. */
  async enqueueDue(): Promise<void> {
    const { failures } = await this.#schedules.enqueueDue();
    if (failures[0] !== undefined) throw failures[0].error;
  }

  close(): Promise<void> {
    // Outside of any task: what is closed here waits for the task that has called, if one has.
    this.#closing ??= scope.run(undefined, () => this.#close());
    if (!isInTaskOf(this)) return this.#closing;
    void ignore(this.#closing);
    return Promise.resolve();
  }

  async #close(): Promise<void> {
    // Running tasks may enqueue others until they have ended.
    const failures = new Failures();
    const workers = [...this.#workers];
    await Promise.all(workers.map((worker) => failures.try(() => worker.close({ timeout: Number.POSITIVE_INFINITY }))));
    this.#schedules.stop();
    await this.#calls.close();
    await this.#watchers.close();
    await failures.try(() => this.#driver.close());
    failures.throw('the engine could not be closed in full');
  }

  /** Nothing but a UUID is asked for. */
  async #find(ids: readonly string[], result: boolean): Promise<TaskRecord[]> {
    const find = this.#calls.method('find', 'get()').bind(this.#driver);
    const known = ids.flatMap((id) => knownId(id) ?? []);
    return this.#calls.make(notRead, async (expired) => (known.length === 0 ? [] : find(known, { result }, expired)));
  }

  #wake(): void {
    for (const worker of this.#workers) worker.wake();
  }
}

/** What a worker's runner uses of a driver. */
function storeOf(driver: EngineDriver): RunStore {
  const { name, findCancelled, setProgress } = driver;
  return { name, findCancelled: findCancelled?.bind(driver), setProgress: setProgress?.bind(driver) };
}

const isSignal: Check = (value) => (value instanceof AbortSignal ? undefined : 'an AbortSignal');
