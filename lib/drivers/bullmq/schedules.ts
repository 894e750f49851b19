// The schedules of a queue: a hash of their definitions by their names.

import type { ScheduleStore, StoredSchedule } from '../../engine/driver.js';
import type { TaskMessage } from '../../engine/message.js';
import type { Connection } from './connection.js';
import type { Scripts } from './scripts/index.js';

/** What it uses of the driver. */
export interface ScheduleSurroundings {
  readonly connection: Connection;
  readonly scripts: Scripts;
  readonly key: string;
  /** Resolves once there is a connection. */
  ready(): Promise<void>;
  insert(message: TaskMessage, expired: AbortSignal): Promise<string>;
}

export class BullmqSchedules implements ScheduleStore {
  readonly #use: ScheduleSurroundings;

  constructor(surroundings: ScheduleSurroundings) {
    this.#use = surroundings;
  }

  async list(due = Number.POSITIVE_INFINITY): Promise<StoredSchedule[]> {
    await this.#use.ready();
    const all = Object.entries(await this.#use.connection.hgetall(this.#use.key));
    return all.map(([name, value]) => read(name, value)).filter(({ next }) => next <= due);
  }

  async put(schedule: StoredSchedule, expired: AbortSignal): Promise<void> {
    await this.#use.ready();
    expired.throwIfAborted();
    await this.#use.connection.hset(this.#use.key, schedule.name, write(schedule));
  }

  async delete(name: string, expired: AbortSignal): Promise<boolean> {
    await this.#use.ready();
    expired.throwIfAborted();
    return (await this.#use.connection.hdel(this.#use.key, name)) === 1;
  }

  /** The task first: its id is that of the slot, so that it is stored once however often this is tried. */
  async advance(schedule: StoredSchedule, next: number, message: TaskMessage, expired: AbortSignal): Promise<void> {
    await this.#use.ready();
    const { name } = schedule;
    const stored = await this.#use.connection.hget(this.#use.key, name);
    if (stored !== write(schedule)) return;
    await this.#use.insert(message, expired);
    await this.#use.scripts.run('advance', [name, stored, write({ ...schedule, next })]);
  }
}

function write({ next, definition }: StoredSchedule): string {
  return `${next} ${definition}`;
}

function read(name: string, stored: string): StoredSchedule {
  const end = stored.indexOf(' ');
  return { name, next: Number(stored.slice(0, end)), definition: stored.slice(end + 1) };
}
