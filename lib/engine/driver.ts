// What an author of an engine writes: a driver stores tasks, takes them, ends them and finds them. The engine in front of it
// (create-engine.ts) does once what all of them need.

import type { TaskRecord } from './engine.js';
import type { TaskMessage } from './message.js';
import type { MessageRunner } from './message-runner.js';

/** A method that a driver does not have is refused with `ERR_INVALID_OPTION`. */
export interface EngineDriver {
  /** As messages name the engine: `sqlite`. */
  readonly name: string;
  /** For methods that the driver does not have: what to use instead, to end a sentence. */
  readonly instead?: Partial<Record<'work' | 'find', string>>;
  /**
   * Stores a task durably, and resolves with its id or, where a live task has the same key, with the id of that one. Rejects
   * at once with {@link unsupported} for an option that it cannot honour. Whatever else it rejects with becomes
   * `ERR_ENGINE_UNAVAILABLE`. Once `expired` is aborted, `enqueue` has rejected: nothing may be stored any more.
   */
  insert(message: TaskMessage, expired: AbortSignal): Promise<string>;
  /** Starts to take tasks, and hands them to the runner. */
  readonly work?: ((runner: MessageRunner) => Promise<DriverWorker> | DriverWorker) | undefined;
  /**
   * What is known of a task, by its id in lower case; undefined for an unknown one. Without `result` neither the result nor
   * the arguments are read, which may be large.
   */
  readonly find?:
    | ((id: string, fields: { readonly result: boolean }, expired: AbortSignal) => Promise<TaskRecord | undefined>)
    | undefined;
  /** Why the store is out of reach, where the driver knows it better than the call that failed. */
  trouble?(): unknown;
  /** Gives up its connections. Called once, after its workers have been closed and no call is under way. */
  close(): Promise<void> | void;
}

export interface DriverWorker {
  /** Called when there may be a task to take: one was stored by this process, or a slot is free again. */
  wake?(): void;
  /** Takes no more tasks. */
  stop(): void;
  /** Called after `stop` and once no attempt runs: resolves when their ends are stored, and frees what the worker holds. */
  close(): Promise<void>;
}
