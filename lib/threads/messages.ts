// What crosses between the event loop and a thread.

import type { TaskInfo } from '../task/types.js';
import type { ErrorBox } from './error-box.js';

/** A call, on its way to a thread. */
export interface CallMessage {
  readonly call: number;
  readonly slot: number;
  readonly module: string;
  readonly exported: string;
  readonly task: string;
  readonly args: readonly unknown[];
  /** Undefined for a call outside of tasks. */
  readonly attempt: TaskInfo | undefined;
  /** Whether the thread is to say that it begins. */
  readonly isTimed: boolean;
}

/**
 * What a call returned or threw, as the thread's answer. A value of which it is not sure that it can be cloned is posted on its own, in a
 * `ThreadMessage`: piscina's answer would kill the thread where it cannot.
 */
export type Reply = (
  | { readonly is: 'value'; readonly value: unknown }
  | { readonly is: 'posted' }
  | { readonly is: 'error'; readonly error: ErrorBox }
) & {
  /** JSON of what the task last reported: a message may be behind the reply. */
  readonly progress: string | undefined;
};

/** What a thread says by itself. */
export type ThreadMessage = { readonly call: number } & (
  | { readonly is: 'begun' }
  | { readonly is: 'progress'; readonly json: string }
  | { readonly is: 'posted'; readonly value: unknown }
);
