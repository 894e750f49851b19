// watch(): all watchers of an engine share one query, so that a thousand of them cost what one costs.

import { AsyncResource } from 'node:async_hooks';
import { setTimeout } from '../clock.js';
import { isOver, type TaskRecord, type WatchOptions } from './engine.js';

/** Between two looks, in ms. What a task reports is to be seen within a second, and waits for half of one in its worker. */
const interval = 400;

type Find = (ids: readonly string[], result: boolean) => Promise<TaskRecord[]>;

export class Watchers {
  readonly #find: Find;
  readonly #watchers = new Map<string, Set<Watcher>>();
  #isLooking = false;

  constructor(find: Find) {
    this.#find = find;
  }

  async *watch(id: string, { signal, result = true }: WatchOptions): AsyncGenerator<TaskRecord, void, void> {
    const watcher = new Watcher();
    const onAbort = (): void => watcher.tell({ record: undefined });
    signal?.addEventListener('abort', onAbort);
    this.#add(id, watcher);
    try {
      let last = '';
      while (signal?.aborted !== true) {
        const record = await watcher.next();
        if (record === undefined) return;
        if (isOver(record.state)) {
          const [whole = record] = result ? await this.#find([id], true) : [record];
          yield whole;
          if (isOver(whole.state)) return; // Else it was queued anew.
        }
        const shown = JSON.stringify(record);
        if (shown !== last && !isOver(record.state)) yield record;
        last = shown;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      this.#remove(id, watcher);
    }
  }

  #add(id: string, watcher: Watcher): void {
    const watchers = this.#watchers.get(id) ?? new Set();
    this.#watchers.set(id, watchers.add(watcher));
    if (this.#isLooking) return;
    this.#isLooking = true;
    setTimeout(this.#look, 0); // Together with those that begin to watch in this turn.
  }

  #remove(id: string, watcher: Watcher): void {
    const watchers = this.#watchers.get(id);
    watchers?.delete(watcher);
    if (watchers?.size === 0) this.#watchers.delete(id);
  }

  /** Without the AsyncLocalStorage stores of the request that was the first to watch. */
  readonly #look = AsyncResource.bind(async (): Promise<void> => {
    const watched = new Map([...this.#watchers].map(([id, watchers]) => [id, [...watchers]]));
    if (watched.size === 0) {
      this.#isLooking = false;
      return;
    }
    try {
      const records = new Map((await this.#find([...watched.keys()], false)).map((record) => [record.id, record]));
      for (const [id, watchers] of watched) {
        for (const watcher of watchers) watcher.tell({ record: records.get(id) });
      }
    } catch (error) {
      for (const watchers of watched.values()) {
        for (const watcher of watchers) watcher.tell({ error });
      }
    }
    setTimeout(this.#look, interval);
  });
}

/** What a look has shown: undefined for an unknown id, or why the store could not be asked. */
type Look = { readonly record: TaskRecord | undefined } | { readonly error: unknown };

/** Hands on what was seen last: who is slow misses what was in between. */
class Watcher {
  #look: Look | undefined = undefined;
  #wake: (() => void) | undefined = undefined;

  tell(look: Look): void {
    this.#look = look;
    this.#wake?.();
  }

  async next(): Promise<TaskRecord | undefined> {
    if (this.#look === undefined) {
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
    }
    const look = this.#look;
    this.#look = undefined;
    if (look !== undefined && 'error' in look) throw look.error;
    return look?.record;
  }
}
