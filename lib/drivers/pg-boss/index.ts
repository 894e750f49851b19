// pgBoss(): an engine on pg-boss, for PostgreSQL, what speaks its protocol, and PGlite. It imports nothing of pg-boss: the
// user makes the instance, starts it and stops it. What its workers do is in worker.ts.

import { createHash } from 'node:crypto';
import { sleep } from '../../clock.js';
import { createEngine, unsupported } from '../../engine/create-engine.js';
import type { EngineDriver } from '../../engine/driver.js';
import type { TaskEngine, TaskRecord } from '../../engine/engine.js';
import type { TaskMessage } from '../../engine/message.js';
import type { MessageRunner } from '../../engine/message-runner.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import { type Boss, type Db, day, queue, TaskQueue } from './boss.js';
import type { StoredMessage } from './job.js';
import { JobTable } from './table.js';
import { PgBossWorker } from './worker.js';

/**
 * An engine on pg-boss 12.35 or later. Start pg-boss before its first use, and close the engine before you stop pg-boss. A
 * task whose worker died runs again once pg-boss's supervision has found it: after 15 s and the longer one of pg-boss's
 * `superviseIntervalSeconds` and `monitorIntervalSeconds`. No attempt may last longer than a day.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for anything else.
 * @example
 * const boss = await new PgBoss('postgres://localhost/app').start();
 * app.use(backgroundTasks({ engine: pgBoss(boss) }));
 */
export function pgBoss(boss: Boss): TaskEngine {
  if (!isObject(boss) || typeof boss.isTimekeeping !== 'function') {
    throw new BackgroundTasksError(
      'ERR_INVALID_OPTION',
      'pgBoss(): the argument must be an instance of PgBoss, of pg-boss 12.35 or later',
    );
  }
  return createEngine(new PgBossDriver(boss));
}

class PgBossDriver implements EngineDriver {
  readonly name = 'pg-boss';
  readonly #boss: Boss;
  readonly #queue: TaskQueue;
  readonly #table: JobTable;

  constructor(boss: Boss) {
    this.#boss = boss;
    this.#queue = new TaskQueue(boss);
    this.#table = new JobTable(boss);
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
    return new PgBossWorker(this.#boss, this.#queue, this.#table, runner);
  }

  async find(id: string, { result }: { readonly result: boolean }): Promise<TaskRecord | undefined> {
    return this.#queue.use(() => this.#table.find(id, result));
  }

  /** The instance is the user's. */
  close(): void {}
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

/** What pg-boss or PostgreSQL cannot hold. */
function refuse({ name, timeout = 0, delay = 0, priority = 0 }: TaskMessage): void {
  if (/[\0\ud800-\udfff]/u.test(name))
    throw unsupported('pg-boss', 'name', 'PostgreSQL has neither NUL nor half surrogates');
  // It is in an index, whose rows have room for 2,704 bytes. Over that it could be stored, and nothing be taken any more.
  if (Buffer.byteLength(name) > 2000) throw unsupported('pg-boss', 'name', 'it must be at most 2,000 bytes long');
  if (timeout >= day * 1000) throw unsupported('pg-boss', 'timeout', 'it must be less than a day');
  if (delay > 3650 * day * 1000) throw unsupported('pg-boss', 'delay', 'it must be at most 10 years');
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
