// watch(): all watchers of an engine share one query, so that a thousand of them cost what one costs.

import { AsyncResource } from 'node:async_hooks';
import { clearTimeout, setImmediate, setTimeout } from '../clock.js';
import { isOver, type TaskRecord, type WatchOptions } from './engine.js';

/** Between two looks, in ms. What a task reports is to be seen within a second, and waits for half of one in its worker. */
const interval = 400;

type Find = (ids: readonly string[], result: boolean) => Promise<TaskRecord[]>;

export class Watchers {
  readonly #find: Find;
  readonly #watchers = new Set<Watcher>();
  /** Those that have not been told anything yet. */
  #fresh: Watcher[] = [];
  /** How many wait for the next look: they keep the process up. */
  #waiting = 0;
  #timer: NodeJS.Timeout | undefined = undefined;
  #isLooking = false;
  #isClosed = false;

  constructor(find: Find) {
    this.#find = find;
  }

  async *watch(id: string, { signal, result = true }: WatchOptions): AsyncGenerator<TaskRecord, void, void> {
    const watcher = new Watcher(id, (change) => this.#changeWaiting(change));
    const onAbort = (): void => watcher.tell({ record: undefined });
    signal?.addEventListener('abort', onAbort);
    this.#add(watcher);
    try {
      let last = '';
      while (signal?.aborted !== true) {
        const record = await watcher.next();
        if (record === undefined) return;
        if (!isOver(record.state)) {
          const shown = JSON.stringify(record);
          if (shown !== last) yield record;
          last = shown;
          continue;
        }
        const [whole = record] = result ? await this.#find([id], true) : [record];
        if (!isOver(whole.state)) continue; // It was queued anew, which the next look tells.
        yield whole;
        return;
      }
    } finally {
      signal?.removeEventListener('abort', onAbort);
      watcher.isOver = true;
      this.#watchers.delete(watcher);
    }
  }

  /** After the last call of the engine: tells all of them so, and looks no more. */
  async close(): Promise<void> {
    this.#isClosed = true;
    clearTimeout(this.#timer);
    await this.#look([...this.#watchers]);
  }

  #add(watcher: Watcher): void {
    if (this.#fresh.length === 0) setImmediate(this.#lookAtFresh); // Together with those that begin to watch in this turn.
    this.#fresh.push(watcher);
  }

  /** Without the AsyncLocalStorage stores of the request that was the first to watch. */
  readonly #lookAtFresh = AsyncResource.bind(async (): Promise<void> => {
    const fresh = this.#fresh.filter(({ isOver }) => !isOver);
    this.#fresh = [];
    await this.#look(fresh);
    // Only now, so that no later look tells them anything before this one.
    for (const watcher of fresh) if (!watcher.isOver) this.#watchers.add(watcher);
    if (!this.#isLooking) this.#lookLater();
  });

  readonly #lookAtAll = AsyncResource.bind(async (): Promise<void> => {
    await this.#look([...this.#watchers]);
    this.#lookLater();
  });

  #lookLater(): void {
    this.#isLooking = this.#watchers.size > 0 && !this.#isClosed;
    this.#timer = this.#isLooking ? setTimeout(this.#lookAtAll, interval) : undefined;
    this.#changeWaiting(0);
  }

  async #look(watchers: readonly Watcher[]): Promise<void> {
    if (watchers.length === 0) return;
    try {
      const ids = [...new Set(watchers.map(({ id }) => id))];
      const records = new Map((await this.#find(ids, false)).map((record) => [record.id, record]));
      for (const watcher of watchers) watcher.tell({ record: records.get(watcher.id) });
    } catch (error) {
      for (const watcher of watchers) watcher.tell({ error });
    }
  }

  /** An iterator that nobody asks for more does not keep the process up. */
  #changeWaiting(change: number): void {
    this.#waiting += change;
    if (this.#waiting > 0) this.#timer?.ref();
    else this.#timer?.unref();
  }
}

/** What a look has shown: undefined for an unknown id, or why the store could not be asked. */
type Look = { readonly record: TaskRecord | undefined } | { readonly error: unknown };

/** Hands on what was seen last: who is slow misses what was in between. */
class Watcher {
  readonly id: string;
  isOver = false;
  readonly #onWaiting: (change: number) => void;
  #look: Look | undefined = undefined;
  #wake: (() => void) | undefined = undefined;

  /** `onWaiting` is called with 1 when it begins to wait, and with -1 when it has been told. */
  constructor(id: string, onWaiting: (change: number) => void) {
    this.id = id;
    this.#onWaiting = onWaiting;
  }

  tell(look: Look): void {
    this.#look = look;
    this.#wake?.();
  }

  async next(): Promise<TaskRecord | undefined> {
    if (this.#look === undefined) {
      this.#onWaiting(1);
      await new Promise<void>((resolve) => {
        this.#wake = resolve;
      });
      this.#onWaiting(-1);
    }
    const look = this.#look;
    this.#look = undefined;
    if (look !== undefined && 'error' in look) throw look.error;
    return look?.record;
  }
}
