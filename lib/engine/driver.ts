// What an author of an engine writes: a driver stores tasks, takes them, ends them and finds them. The engine in front of it
// (create-engine.ts) does once what all of them need.

import type { EngineStats, ListFilter, TaskFilter, TaskRecord } from './engine.js';
import type { TaskMessage } from './message.js';
import type { MessageRunner, RunStore } from './message-runner.js';

/** A method that a driver does not have is refused with `ERR_INVALID_OPTION`. */
export interface EngineDriver extends RunStore {
  /** As messages name the engine: `sqlite`. */
  readonly name: string;
  /** For methods that the driver does not have: what to use instead, to end a sentence. */
  readonly instead?: { readonly [method in OptionalMethod]?: string };
  /**
   * Stores a task durably, and resolves with its id or, where a live task has the same key, with the id of that one. Stores
   * nothing where a task with its id is there already. Rejects at once with {@link unsupported} for an option that it cannot
   * honour. Whatever else it rejects with becomes `ERR_ENGINE_UNAVAILABLE`. Once `expired` is aborted, `enqueue` has rejected:
   * nothing may be stored any more.
   */
  insert(message: TaskMessage, expired: AbortSignal): Promise<string>;
  /** Stores all of them or none, in one write. Resolves with the ids in their order. */
  readonly insertMany?:
    | ((messages: readonly TaskMessage[], expired: AbortSignal) => Promise<readonly string[]>)
    | undefined;
  /**
   * Inserts in a transaction of the application. Throws {@link unsupported} for what is no transaction. What it rejects with
   * is what `enqueue` rejects with.
   */
  readonly within?: ((transaction: object) => Pick<Required<EngineDriver>, 'insert' | 'insertMany'>) | undefined;
  /** Makes what is to be there before the first task. Called by `ready()` only: the other methods make it by themselves. */
  readonly prepare?: ((expired: AbortSignal) => Promise<void>) | undefined;
  /** Starts to take tasks, and hands them to the runner. */
  readonly work?: ((runner: MessageRunner) => Promise<DriverWorker> | DriverWorker) | undefined;
  /**
   * What is known of tasks, by their ids in lower case, in any order. Without `result` neither the result nor the arguments
   * are read, which may be large.
   */
  readonly find?:
    | ((ids: readonly string[], fields: { readonly result: boolean }, expired: AbortSignal) => Promise<TaskRecord[]>)
    | undefined;
  /** Newest first, with arguments and without results. */
  readonly list?: ((page: Page, expired: AbortSignal) => Promise<TaskRecord[]>) | undefined;
  readonly stats?: ((expired: AbortSignal) => Promise<EngineStats>) | undefined;
  /**
   * Ends a queued task as `cancelled`, or marks a running one. A marked task that is put back, whatever the reason, ends as
   * `cancelled` instead.
   */
  readonly cancel?:
    | ((id: string, expired: AbortSignal) => Promise<'cancelled' | 'signalled' | 'over' | undefined>)
    | undefined;
  /** Queues failed and cancelled tasks anew, some at each step; yields how many. Skips those whose key is live. */
  readonly retry?: ((selection: Selection, expired: AbortSignal) => AsyncIterable<number>) | undefined;
  /** Makes a task that waits for its time due. */
  readonly promote?: ((id: string, expired: AbortSignal) => Promise<boolean>) | undefined;
  /** Removes tasks that do not run, some at each step; yields how many. */
  readonly remove?: ((selection: Selection, expired: AbortSignal) => AsyncIterable<number>) | undefined;
  readonly schedules?: ScheduleStore | undefined;
  /** Why the store is out of reach, where the driver knows it better than the call that failed. */
  trouble?(): unknown;
  /** In ms since 1970, by the clock that the store goes by. Default: that of this machine. */
  now?(): number;
  /** Gives up its connections. Called once, after its workers have been closed and no call is under way. */
  close(): Promise<void> | void;
}

/** What a driver need not have. */
export type OptionalMethod =
  | 'insertMany'
  | 'within'
  | 'work'
  | 'find'
  | 'list'
  | 'stats'
  | 'cancel'
  | 'retry'
  | 'promote'
  | 'remove'
  | 'schedules';

export interface DriverWorker {
  /** Called when there may be a task to take: one was stored by this process, or a slot is free again. */
  wake?(): void;
  /** Takes no more tasks. */
  stop(): void;
  /** Called after `stop` and once no attempt runs: resolves when their ends are stored, and frees what the worker holds. */
  close(): Promise<void>;
}

/** One task, in lower case, or all that fit. */
export type Selection = { readonly id: string } | TaskFilter;

export interface Page extends TaskFilter, Pick<ListFilter, 'after'> {
  readonly limit: number;
  readonly offset: number;
}

/** A schedule as it is stored. */
export interface StoredSchedule {
  readonly name: string;
  /** JSON, for the engine. */
  readonly definition: string;
  /** When it is due next, in ms since 1970. */
  readonly next: number;
}

export interface ScheduleStore {
  /**
   * How long a missed slot is left to the workers that were running when it came, in ms. After that any worker makes it up.
   * Default 5000.
   */
  readonly patience?: number;
  /** All of them, or those that are due by then. */
  list(due: number | undefined, expired: AbortSignal): Promise<StoredSchedule[]>;
  /** Makes or replaces one. */
  put(schedule: StoredSchedule, expired: AbortSignal): Promise<void>;
  /** False if there is none. */
  delete(name: string, expired: AbortSignal): Promise<boolean>;
  /**
   * Stores a task as `insert` does and moves the schedule on to `next`, both or neither where the store can; the task first
   * where it cannot. Does nothing if the schedule has changed meanwhile.
   */
  advance(schedule: StoredSchedule, next: number, message: TaskMessage, expired: AbortSignal): Promise<void>;
}
