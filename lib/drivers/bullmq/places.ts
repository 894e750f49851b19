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
      const ids = await this.#range(place, rank);
      if (ids.length === 0) return;
      yield await this.#fitting(place, name, ids);
    }
  }

  /** How many of those to be skipped need not be looked at. */
  async #jump(place: Place, { name }: TaskFilter, skip: number): Promise<number> {
    return skip === 0 || chooses(place, name) ? 0 : Math.min(skip, await this.#size(place));
  }

  /**
   * The ids of those that fit, oldest first in each place, and without most of those that come meanwhile. They may leave their
   * places from one step to the next, and so may their neighbours: the walk goes on behind the last one that it has seen.
   */
  async *oldest(filter: TaskFilter): AsyncGenerator<string[]> {
    for (const place of inOrderOfChange(placesOf(filter))) {
      const steps = place.isList === true ? this.#listed(place) : this.#sorted(place);
      for await (const ids of steps) yield await this.#fitting(place, filter.name, ids);
    }
  }

  /** Of a list, which has no positions that stay, all ids are read at once. Our own tasks are in one only while they run. */
  async *#listed({ type }: Place): AsyncGenerator<string[]> {
    const ids = (await this.#connection.lrange(this.#keyOf(type), 0, -1)).reverse();
    for (let start = 0; start < ids.length; start += window) yield ids.slice(start, start + window);
  }

  async *#sorted({ type }: Place): AsyncGenerator<string[]> {
    const key = this.#keyOf(type);
    const [, end] = await this.#connection.zrange(key, -1, '-1', 'WITHSCORES');
    /** Those with the last score. Many can have the same. */
    let seen = new Set<string>();
    for (let score: string | undefined = '-inf'; end !== undefined && score !== undefined; ) {
      const limit = ['LIMIT', 0, window + seen.size] as const;
      const pairs = pairsOf(await this.#connection.zrangebyscore(key, score, end, 'WITHSCORES', ...limit));
      const found = pairs.filter(([id]) => !seen.has(id)).slice(0, window);
      yield found.map(([id]) => id);
      const last: string | undefined = found.at(-1)?.[1];
      if (last !== score) seen = new Set();
      for (const [id, other] of found) if (other === last) seen.add(id);
      score = last;
    }
  }

  async #size({ type, isList = false }: Place): Promise<number> {
    const key = this.#keyOf(type);
    return isList ? this.#connection.llen(key) : this.#connection.zcard(key);
  }

  /** In Redis the first of a list is the newest, and the last of a sorted set. */
  async #range({ type, isList = false }: Place, rank: number): Promise<string[]> {
    const key = this.#keyOf(type);
    const last = rank + window - 1;
    return isList ? this.#connection.lrange(key, rank, last) : this.#connection.zrevrange(key, rank, last);
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

/** Those that wait behind another one come first: if that one is removed, they go to another place. */
function inOrderOfChange(looked: readonly Place[]): readonly Place[] {
  const isBehind = ({ type }: Place): boolean => type === 'waiting-children';
  return [...looked.filter(isBehind), ...looked.filter((place) => !isBehind(place))];
}

/** Of what Redis answers: members, each with its score behind it. */
function pairsOf(answer: readonly string[]): [id: string, score: string][] {
  const pairs: [string, string][] = [];
  for (let index = 0; index < answer.length; index += 2) pairs.push([answer[index] ?? '', answer[index + 1] ?? '']);
  return pairs;
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
