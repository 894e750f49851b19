// The driver of pg-boss: stores tasks as jobs of one queue, and finds them. What its workers do is in worker.ts.

import { createHash } from 'node:crypto';
import { sleep } from '../../clock.js';
import { unsupported } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { BackgroundTasksError } from '../../errors.js';
import { type Boss, type Db, day, queue, TaskQueue } from './boss.js';
import type { StoredMessage } from './job.js';
import { JobTable } from './table.js';
import { UnknownTasks } from './unknown.js';
import { PgBossWorker } from './worker.js';

export class PgBossDriver implements EngineDriver {
  readonly name = 'pg-boss';
  readonly #boss: Boss;
  readonly #queue: TaskQueue;
  readonly #table: JobTable;
  readonly #runners = new Set<MessageRunner>();
  readonly #unknown: UnknownTasks;

  /** `unknownAfter`: for so many ms a task is left to workers of other processes before it is reported as unknown. */
  constructor(boss: Boss, { unknownAfter = 5000 } = {}) {
    this.#boss = boss;
    this.#queue = new TaskQueue(boss);
    this.#table = new JobTable(boss);
    this.#unknown = new UnknownTasks(this.#table, this.#runners, unknownAfter);
    listenForErrors(boss);
  }

  async insert(message: TaskMessage, expired: AbortSignal): Promise<string> {
    refuse(message);
    const { id, name, json, timeout, retries, delay = 0, priority = 0, key } = message;
    const data: StoredMessage = { name, args: json, timeout, retries, failed: 0, dropped: 0, unused: 0 };
    const singletonKey = key === undefined ? id : hash(key);
    const db = unlessExpired(this.#boss.getDb(), expired);
    const options = { id, singletonKey, priority, startAfter: Math.ceil(delay) / 1000, group: { id: name }, db };
    while (true) {
      const held = await this.#queue.use(async () => {
        expired.throwIfAborted();
        return (await this.#boss.send(queue, data, options)) ?? (await this.#table.holderOf(singletonKey));
      });
      if (held !== undefined) return held;
      await sleep(10); // It has ended in between.
    }
  }

  async work(runner: MessageRunner): Promise<PgBossWorker> {
    if (runner.concurrency === Number.POSITIVE_INFINITY) {
      throw unsupported('pg-boss', 'concurrency', 'it must be finite');
    }
    await this.#queue.use(async () => {});
    this.#runners.add(runner);
    this.#unknown.start();
    const store = { boss: this.#boss, queue: this.#queue, table: this.#table };
    return new PgBossWorker(store, runner, this.#runners, () => this.#closed(runner));
  }

  async find(id: string, { result }: { readonly result: boolean }): Promise<TaskRecord | undefined> {
    return this.#queue.use(() => this.#table.find(id, result));
  }

  /** The instance is the user's. */
  close(): void {}

  async #closed(runner: MessageRunner): Promise<void> {
    this.#runners.delete(runner);
    this.#unknown.restart();
    if (this.#runners.size === 0) await this.#unknown.stop();
  }
}

/**
 * An insert that still waits for a connection of the pool when the time is up inserts nothing, since node-postgres asks these
 * values for their text behind that wait. What has been sent by then may be stored, although enqueue has rejected. A `db` of
 * the user's own may take no such values.
 */
function unlessExpired(db: Db, expired: AbortSignal): Db {
  if (db._pgbdb !== true) return db;
  const late = (value: unknown): unknown =>
    typeof value === 'string' ? { toPostgres: () => (expired.aborted ? '[]' : value) } : value;
  return { executeSql: (text, values) => db.executeSql(text, values?.map(late)) };
}

/** A text in jsonb has at most so many bytes. */
const longestText = 2 ** 28 - 1;

/** What pg-boss or PostgreSQL cannot hold. */
function refuse({ name, json, timeout = 0, delay = 0, priority = 0 }: TaskMessage): void {
  if (/[\0\ud800-\udfff]/u.test(name))
    throw unsupported('pg-boss', 'name', 'PostgreSQL has neither NUL nor half surrogates');
  // It is in an index, whose rows have room for 2,704 bytes. Over that it could be stored, and nothing be taken any more.
  if (Buffer.byteLength(name) > 2000) throw unsupported('pg-boss', 'name', 'it must be at most 2,000 bytes long');
  if (timeout >= day * 1000) throw unsupported('pg-boss', 'timeout', 'it must be less than a day');
  if (delay > 3650 * day * 1000) throw unsupported('pg-boss', 'delay', 'it must be at most 10 years');
  // In UTF-8, whose characters have at most three bytes for a unit of a string.
  if (json.length > longestText / 3 && Buffer.byteLength(json) > longestText) {
    const message = `task "${name}": PostgreSQL has no room for args of over ${longestText} bytes in jsonb`;
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', message);
  }
  if (Math.abs(priority) >= 2 ** 31) throw unsupported('pg-boss', 'priority', 'it must be a 32-bit integer');
}

const heard = new WeakSet<Boss>();

/**
 * pg-boss emits an 'error' for each connection that breaks and, while PostgreSQL is away, at each poll: that ends a process
 * that does not listen. It goes on until the user has stopped it, so the listener stays when the engine is closed.
 */
function listenForErrors(boss: Boss): void {
  if (heard.has(boss)) return;
  heard.add(boss);
  boss.on('error', () => {});
}

/** Of any text, what PostgreSQL can hold and index. */
const hash = (key: string): string => createHash('sha256').update(JSON.stringify(key)).digest('base64url');
