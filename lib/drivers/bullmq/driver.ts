// The driver of BullMQ: stores tasks as jobs of one queue, finds them, and does what people do with them.

import { Queue } from 'bullmq';
import type { RedisOptions } from 'ioredis';
import { nextTurn, wallClockTime } from '../../clock.js';
import { withDeadline } from '../../engine/deadline.js';
import type { EngineDriver, Page, ScheduleStore, Selection } from '../../engine/driver.js';
import type { EngineStats, TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import type { Progress } from '../../engine/progress.js';
import { Connection } from './connection.js';
import { Inserts } from './inserts.js';
import type { StoredMessage } from './job.js';
import { Places } from './places.js';
import { columns, recordOf } from './record.js';
import { BullmqSchedules } from './schedules.js';
import { type ScriptName, Scripts } from './scripts/index.js';
import { BullmqWorker, defaultTiming, type Settings } from './worker.js';

/** So many tasks are read or changed at a time, in which Redis does nothing else. */
const batch = 250;

export class BullmqDriver implements EngineDriver {
  readonly name = 'bullmq';
  readonly instead = {
    within:
      'keep what is to be enqueued in a table of that transaction, an outbox: see "Transactions" in docs/engines.md',
  };
  readonly schedules: ScheduleStore;
  readonly #options: RedisOptions;
  readonly #settings: Settings;
  readonly #connection: Connection;
  readonly #queue: Queue<StoredMessage>;
  readonly #scripts: Scripts;
  readonly #inserts: Inserts;
  readonly #places: Places;
  readonly #workers = new Set<BullmqWorker>();

  constructor(name: string, options: RedisOptions, settings: Settings = defaultTiming) {
    this.#options = options;
    this.#settings = settings;
    // While Redis is away nothing is kept for later, and what was under way when the connection broke is not sent again.
    this.#connection = new Connection({ ...options, enableOfflineQueue: false, maxRetriesPerRequest: 0 });
    // BullMQ's check of the version would break the queue for good if Redis went away in the middle of it.
    const { telemetry } = settings;
    this.#queue = new Queue(name, {
      connection: this.#connection,
      skipVersionCheck: true,
      ...(telemetry && { telemetry }),
    });
    this.#queue.on('error', ignore); // The connection knows it too, and BullMQ needs a listener.
    const keyOf = (type: string): string => this.#queue.toKey(type);
    this.#scripts = new Scripts(this.#connection, keyOf);
    this.#inserts = new Inserts(this.#queue, this.#connection, this.#scripts);
    this.#places = new Places(this.#connection, this.#scripts, keyOf);
    this.schedules = new BullmqSchedules({
      connection: this.#connection,
      scripts: this.#scripts,
      key: keyOf('tasks-schedules'),
      ready: () => this.#ready(),
      insert: (message, expired) => this.insert(message, expired),
    });
  }

  trouble(): Error | undefined {
    return this.#connection.trouble;
  }

  async prepare(): Promise<void> {
    await this.#ready();
    await this.#connection.ping();
  }

  insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    return this.#inserts.one(message, expired);
  }

  insertMany(messages: readonly TaskMessage[], expired: AbortSignal): Promise<string[]> {
    return this.#inserts.many(messages, expired);
  }

  async work(runner: MessageRunner): Promise<BullmqWorker> {
    const worker = new BullmqWorker(this.#queue.name, this.#options, this.#settings, runner, this.#workers);
    await worker.ready();
    return worker;
  }

  find(ids: readonly string[], { result }: { readonly result: boolean }): Promise<TaskRecord[]> {
    return this.#records(ids, columns[result ? 'all' : 'small']);
  }

  async list({ limit, ...filter }: Page, expired: AbortSignal): Promise<TaskRecord[]> {
    await this.#ready();
    const ids = new Set<string>();
    for await (const found of this.#places.newest(filter)) {
      expired.throwIfAborted();
      for (const id of found) ids.add(id);
      if (ids.size >= limit) break;
      await nextTurn();
    }
    return this.#records([...ids].slice(0, limit), columns.withArgs);
  }

  async stats(): Promise<EngineStats> {
    const counts = await this.#run('stats');
    const [queued = 0, due = 0, running = 0, succeeded = 0, failed = 0, cancelled = 0, oldest = 0] = Array.isArray(
      counts,
    )
      ? counts.map(Number)
      : [];
    const stats = { queued, due, running, succeeded, failed, cancelled };
    return due === 0 ? stats : { ...stats, oldestDueAt: new Date(oldest) };
  }

  async cancel(id: string, expired: AbortSignal): Promise<'cancelled' | 'signalled' | 'over' | undefined> {
    const answer = await this.#change('cancel', expired, [id]);
    return answer === 'cancelled' || answer === 'signalled' || answer === 'over' ? answer : undefined;
  }

  async findCancelled(ids: readonly string[]): Promise<string[]> {
    await this.#ready();
    const looks = this.#connection.pipeline();
    for (const id of ids) looks.hexists(this.#queue.toKey(id), 'tasks:marked');
    const answers = (await looks.exec()) ?? [];
    return ids.filter((_, index) => answers[index]?.[1] === 1);
  }

  retry(selection: Selection, expired: AbortSignal): AsyncGenerator<number> {
    return this.#changeAll(selection, (ids) => this.#change('retry', expired, ids));
  }

  async promote(id: string, expired: AbortSignal): Promise<boolean> {
    return (await this.#change('promote', expired, [id])) === 1;
  }

  remove(selection: Selection, expired: AbortSignal): AsyncGenerator<number> {
    const state = 'id' in selection ? undefined : selection.state;
    return this.#changeAll(selection, (ids) => this.#change('remove', expired, [state ?? '', ...ids]));
  }

  async setProgress(progress: readonly Progress[]): Promise<void> {
    await this.#run(
      'setProgress',
      progress.flatMap(({ id, attempt, json }) => [id, attempt, json]),
    );
  }

  async close(): Promise<void> {
    await Promise.all([...this.#workers].map((worker) => worker.ended()));
    // It waits for the answers that are still due, which do not come while Redis is away.
    await withDeadline(() => this.#connection.quit()).catch(ignore);
    this.#connection.finish();
    await this.#queue.close();
  }

  async #ready(): Promise<void> {
    await this.#queue.waitUntilReady();
  }

  async #run(name: ScriptName, args: readonly (string | number)[] = []): Promise<unknown> {
    await this.#ready();
    return this.#scripts.run(name, args);
  }

  async #change(name: ScriptName, expired: AbortSignal, args: readonly string[]): Promise<unknown> {
    await this.#ready();
    expired.throwIfAborted();
    return this.#scripts.run(name, args);
  }

  async *#changeAll(
    selection: Selection,
    change: (ids: readonly string[]) => Promise<unknown>,
  ): AsyncGenerator<number> {
    await this.#ready();
    if ('id' in selection) {
      yield Number(await change([selection.id]));
      return;
    }
    for await (const ids of this.#places.oldest(selection)) {
      for (const some of slices(ids)) yield Number(await change(some));
    }
  }

  async #records(ids: readonly string[], fields: (typeof columns)['small']): Promise<TaskRecord[]> {
    const records: TaskRecord[] = [];
    for (const some of slices(ids)) {
      const found = await this.#run('find', [fields.length, ...fields, ...some]);
      const now = wallClockTime();
      for (const [index, values] of (Array.isArray(found) ? found : []).entries()) {
        const record = recordOf(some[index] ?? '', fields, values, now);
        if (record !== undefined) records.push(record);
      }
    }
    return records;
  }
}

function* slices(ids: readonly string[]): Generator<readonly string[]> {
  for (let start = 0; start < ids.length; start += batch) yield ids.slice(start, start + batch);
}

const ignore = (): void => {};
