// Where the tasks of each state are in Redis, and how to walk through them in steps, since there may be millions.

import type { Page } from '../../engine/driver.js';
import type { TaskFilter, TaskState } from '../../engine/engine.js';
import { timeOfId } from '../../engine/id.js';
import type { Connection } from './connection.js';
import type { Scripts } from './scripts/index.js';
import { cancelledSet } from './scripts/shared.js';

interface Place {
  readonly state: TaskState;
  readonly type: string;
  readonly isList?: boolean;
  /** Of the active ones: whether their worker lives. */
  readonly isHeld?: boolean;
}

/** In the order in which they are listed. */
const places: readonly Place[] = [
  { state: 'running', type: 'active', isList: true, isHeld: true },
  { state: 'queued', type: 'active', isList: true, isHeld: false },
  { state: 'queued', type: 'wait', isList: true },
  { state: 'queued', type: 'prioritized' },
  { state: 'queued', type: 'waiting-children' },
  { state: 'queued', type: 'delayed' },
  { state: 'failed', type: 'failed' },
  { state: 'cancelled', type: cancelledSet },
  { state: 'succeeded', type: 'completed' },
];

/** So many are looked at in one step. */
const window = 1000;

export class Places {
  readonly #connection: Connection;
  readonly #scripts: Scripts;
  readonly #keyOf: (type: string) => string;

  constructor(connection: Connection, scripts: Scripts, keyOf: (type: string) => string) {
    this.#connection = connection;
    this.#scripts = scripts;
    this.#keyOf = keyOf;
  }

  /** The ids of those that fit, newest first in each place: from behind the one with the id `after`, and without the first `offset`. */
  async *newest({ after, offset, ...filter }: Omit<Page, 'limit'>): AsyncGenerator<string[]> {
    const looked = placesOf(filter);
    const start = after === undefined ? undefined : await this.#find(looked, after);
    const isOlder = after === undefined || start !== undefined ? () => true : olderThan(after);
    let skip = offset;
    for (const [index, place] of looked.slice(start?.index).entries()) {
      const rank = start !== undefined && index === 0 ? start.rank + 1 : 0;
      const jump = after === undefined ? await this.#jump(place, filter, skip) : 0;
      skip -= jump;
      for await (const ids of this.#walk(place, filter, rank + jump)) {
        const fitting = isOver(place) ? ids : ids.filter(isOlder);
        yield fitting.slice(skip);
        skip = Math.max(0, skip - fitting.length);
      }
    }
  }

  async *#walk(place: Place, { name }: TaskFilter, from: number): AsyncGenerator<string[]> {
    for (let rank = from; ; rank += window) {
      const ids = await this.#range(place, rank, 'newest');
      if (ids.length === 0) return;
      yield await this.#fitting(place, name, ids);
    }
  }

  /** How many of those to be skipped need not be looked at. */
  async #jump(place: Place, { name }: TaskFilter, skip: number): Promise<number> {
    return skip === 0 || chooses(place, name) ? 0 : Math.min(skip, await this.#size(place));
  }

  /**
   * The same, oldest first, and those only that are there at the beginning. `change` is called with some of them at a time, and
   * resolves with how many have left their place.
   */
  async *change(filter: TaskFilter, change: (ids: string[]) => Promise<number>): AsyncGenerator<number> {
    for (const place of placesOf(filter)) {
      let left = await this.#size(place);
      for (let rank = 0; left > 0; ) {
        const ids = (await this.#range(place, rank, 'oldest')).slice(0, left);
        if (ids.length === 0) break;
        const count = await change(await this.#fitting(place, filter.name, ids));
        left -= ids.length;
        rank += ids.length - count;
        yield count;
      }
    }
  }

  async #size({ type, isList = false }: Place): Promise<number> {
    const key = this.#keyOf(type);
    return isList ? this.#connection.llen(key) : this.#connection.zcard(key);
  }

  /** In Redis the first of a list is the newest, and the last of a sorted set. */
  async #range({ type, isList = false }: Place, rank: number, first: 'newest' | 'oldest'): Promise<string[]> {
    const key = this.#keyOf(type);
    const last = rank + window - 1;
    if (isList && first === 'oldest') return (await this.#connection.lrange(key, -last - 1, -rank - 1)).reverse();
    if (isList) return this.#connection.lrange(key, rank, last);
    if (first === 'oldest') return this.#connection.zrange(key, rank, String(last));
    return this.#connection.zrevrange(key, rank, last);
  }

  async #fitting(place: Place, name: string | undefined, ids: string[]): Promise<string[]> {
    if (!chooses(place, name)) return ids;
    const { isHeld } = place;
    const held = isHeld === undefined ? '' : Number(isHeld);
    const found = await this.#scripts.run('fitting', [name ?? '', held, ...ids]);
    return Array.isArray(found) ? found.map(String) : [];
  }

  async #find(looked: readonly Place[], id: string): Promise<{ index: number; rank: number } | undefined> {
    for (const [index, { type, isList = false }] of looked.entries()) {
      const key = this.#keyOf(type);
      const rank = isList ? await this.#connection.lpos(key, id) : await this.#connection.zrevrank(key, id);
      if (rank !== null) return { index, rank };
    }
    return undefined;
  }
}

function placesOf({ state }: TaskFilter): readonly Place[] {
  return state === undefined ? places : places.filter((place) => place.state === state);
}

/** Whether some of a place do not fit. */
function chooses({ isHeld }: Place, name: string | undefined): boolean {
  return isHeld !== undefined || name !== undefined;
}

/** There they are in the order in which they ended. */
function isOver({ state }: Place): boolean {
  return state !== 'queued' && state !== 'running';
}

/** Where the last task of a page has left the places since then: those that were enqueued before it, as far as ids tell. */
function olderThan(after: string): (id: string) => boolean {
  const time = timeOfId(after) ?? new Date(0);
  return (id) => (timeOfId(id) ?? 0) <= time && id !== after;
}
