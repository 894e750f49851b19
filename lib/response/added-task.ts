// An added task: what add() makes of a function, its arguments and the context of the call. It is also the handle that add()
// returns.

import { randomUUID } from 'node:crypto';
import type { Request, Response } from 'express';
import { monotonicTime } from '../clock.js';
import type { Attemptable } from '../task/attempt.js';
import { Call } from '../task/call.js';
import { type Definition, definitionOf } from '../task/task.js';
import type { TaskTrace } from '../task/tracing.js';
import type { AnyFunction, TaskHandle, TaskIdentity, TaskInfo, TaskOutcome, TaskStatus } from '../task/types.js';
import type { Queueable } from './queue.js';

/** The list that a task is on until it has ended. */
export interface TaskOwner {
  /** Absent where the response is gone. */
  readonly req: Request | undefined;
  readonly res: Response | undefined;
  /** Called by the handle of a task that has not ended. */
  cancel(task: AddedTask): void;
}

/**
 * The handle of an added task, and all that is kept of the task until it has ended. It is small, since there is one for each
 * pending task, and copying them is most of what they cost (bench/memory). So what only some tasks need is in `Details`, and
 * there is no private method, which would add 8 bytes to each object.
 */
export class AddedTask implements TaskHandle, Attemptable, Queueable<AddedTask> {
  next: AddedTask | undefined = undefined;
  /** After the task has ended only its identity stays, so that a handle does not keep the response alive. */
  #call: Call | Identity;
  #owner: TaskOwner | undefined;
  /** While the task is pending, this is when it was added, by the monotonic clock: a field of its own would be 8 bytes more. */
  #status: TaskStatus | number = Math.trunc(monotonicTime());
  #details: Details | undefined = undefined;

  constructor(fn: AnyFunction, args: readonly unknown[], owner: TaskOwner) {
    this.#call = new Call(fn, args);
    this.#owner = owner;
  }

  get identity(): Identity {
    if (this.#call instanceof Identity) return this.#call;
    this.#details ??= noDetails();
    this.#details.identity ??= new Identity(nameOf(this.#call.fn));
    return this.#details.identity;
  }

  get id(): string {
    return this.identity.id;
  }

  get name(): string {
    return this.identity.name;
  }

  get status(): TaskStatus {
    return typeof this.#status === 'number' ? 'pending' : this.#status;
  }

  /** Undefined once the task has begun: its run knows. */
  get addedAt(): number | undefined {
    return typeof this.#status === 'number' ? this.#status : undefined;
  }

  get progress(): unknown {
    const json = this.#details?.progress;
    return json === undefined ? undefined : JSON.parse(json);
  }

  get finished(): Promise<TaskOutcome> {
    this.#details ??= noDetails();
    const details = this.#details;
    const { status } = this;
    details.finished ??= isOver(status)
      ? Promise.resolve(outcome(status, details.result))
      : new Promise((resolve) => {
          details.resolve = resolve;
        });
    return details.finished;
  }

  /** What {@link task} made of the function. Undefined for a function without. */
  get definition(): Definition | undefined {
    return this.#call instanceof Identity ? undefined : definitionOf(this.#call.fn);
  }

  info(attempt: number): TaskInfo {
    return { id: this.id, name: this.name, attempt };
  }

  toJSON(): Pick<TaskHandle, 'id' | 'name' | 'status'> {
    return { id: this.id, name: this.name, status: this.status };
  }

  cancel(): boolean {
    const isPending = typeof this.#status === 'number';
    this.#owner?.cancel(this);
    return isPending;
  }

  /** Returns when the task was added. */
  begin(): number {
    const addedAt = Number(this.#status);
    this.#status = 'running';
    return addedAt;
  }

  /** Throws for a task that has ended. */
  get call(): Call {
    return notOver(this.#call);
  }

  /** With JSON. */
  progressed(json: string): void {
    this.#details ??= noDetails();
    this.#details.progress = json;
  }

  trace(info: TaskInfo): TaskTrace {
    const trace: TaskTrace = { task: info, args: this.#call instanceof Identity ? [] : this.#call.args };
    const { req, res } = this.#owner ?? {};
    return { ...trace, ...(req && { req }), ...(res && { res }) };
  }

  /** Returns the call, in whose context a failure is reported, and forgets it. */
  settle(status: TaskOutcome['status'], result?: unknown): Call {
    const { call } = this;
    this.#call = this.identity;
    this.#owner = undefined;
    this.#status = status;
    if (result !== undefined) {
      this.#details ??= noDetails();
      this.#details.result = result;
    }
    this.#details?.resolve?.(outcome(status, result));
    return call;
  }
}

function notOver(call: Call | Identity): Call {
  if (call instanceof Identity) throw new Error(`task "${call.name}" is over`);
  return call;
}

/** The name and the id of a task, shared by its handle and its attempts. */
class Identity implements TaskIdentity {
  #id: string | undefined = undefined;

  constructor(readonly name: string) {}

  get id(): string {
    this.#id ??= randomUUID();
    return this.#id;
  }
}

/** Made on demand. */
interface Details {
  identity: Identity | undefined;
  result: unknown;
  progress: string | undefined;
  finished: Promise<TaskOutcome> | undefined;
  resolve: ((outcome: TaskOutcome) => void) | undefined;
}

function noDetails(): Details {
  return { identity: undefined, result: undefined, progress: undefined, finished: undefined, resolve: undefined };
}

function isOver(status: TaskStatus): status is TaskOutcome['status'] {
  return status !== 'pending' && status !== 'running';
}

function outcome(status: TaskOutcome['status'], result: unknown): TaskOutcome {
  switch (status) {
    case 'succeeded':
      return { status, value: result };
    case 'failed':
    case 'abandoned':
      return { status, error: result };
    default:
      return { status };
  }
}

/** A function's name may be anything, and reading that of a Proxy may throw. */
function nameOf(fn: AnyFunction): string {
  try {
    const name: unknown = fn.name;
    return typeof name === 'string' && name !== '' ? name : 'anonymous';
  } catch {
    return 'anonymous';
  }
}
