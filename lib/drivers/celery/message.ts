// A task as Celery's workers read it, whatever the broker: message protocol 2.
// https://docs.celeryq.dev/en/stable/internals/protocol.html

import { hostname } from 'node:os';
import { wallClockTime } from '../../clock.js';
import { unsupported } from '../../engine/create-engine.js';
import type { TaskMessage } from '../../engine/message.js';
import { serializeArguments } from '../../engine/serialize.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import { countPositional } from './kwargs.js';
import { isIllFormed } from './queue.js';

/** Puts messages into one queue. It connects at the first message, and at the next one after the connection was lost. */
export interface CeleryTransport {
  /** The broker's own number for it. @throws BackgroundTasksError `ERR_INVALID_OPTION` where there is none. */
  priority(asked: number): number;
  /** Resolves once the broker has stored the message. At the abort of `late` the connection is cut that it was sent by. */
  send(message: CeleryMessage, late: AbortSignal): Promise<void>;
  /** To be called when nothing is being sent. */
  close(): Promise<void>;
}

/**
 * The brokers' packages are optional, so that only the one for the broker at hand is loaded. Bundlers leave out what they do
 * not find where the `require` is right inside a `try`.
 */
export function missingPackage(name: string, cause: unknown): BackgroundTasksError {
  const message = `celery(): this broker takes the package ${name}, which could not be loaded: npm install ${name}`;
  return new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
}

export interface CeleryMessage {
  readonly id: string;
  readonly priority: number;
  readonly headers: Readonly<Record<string, unknown>>;
  /** JSON: `[args, kwargs, embed]`. */
  readonly body: string;
}

/**
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for what a producer cannot ask of Celery, `ERR_TASK_NOT_SERIALIZABLE` for
 * arguments that Python cannot read.
 */
export function celeryMessage(message: TaskMessage, priority: number): CeleryMessage {
  refuse(message);
  const { id } = message;
  if (isDeeper(message.args, deepest)) {
    const what = `args are nested more than ${deepest} levels deep, at which a Celery worker may crash`;
    throw new BackgroundTasksError('ERR_TASK_NOT_SERIALIZABLE', `task "${message.name}": ${what}`);
  }
  const values: unknown[] = JSON.parse(message.json);
  const [keywords = {}] = values.splice(countPositional(message.args, message.name));
  const args = serializeArguments(values, message.name);
  const kwargs = serializeArguments([keywords], message.name).slice(1, -1);
  const limit = message.timeout === undefined ? null : message.timeout / 1000;
  const headers = {
    lang: 'py',
    task: message.name,
    id,
    root_id: id,
    parent_id: null,
    group: null,
    group_index: null,
    shadow: null,
    eta: eta(message.delay),
    expires: null,
    retries: 0,
    // Hard and soft. Without a soft one, a longer soft limit of the Python task would put the hard one off.
    timelimit: [limit, limit],
    argsrepr: excerpt(args),
    kwargsrepr: excerpt(kwargs),
    origin: `gen${process.pid}@${hostname()}`,
    ignore_result: false,
  };
  const body = `[${args},${kwargs},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]`;
  return { id, priority, headers, body };
}

/** For people who look at the queue. Half a character at its end would be an error in Python. */
function excerpt(json: string): string {
  return json.slice(0, 1024).replace(/[\ud800-\udbff]$/, '');
}

function refuse({ name, retries, key }: TaskMessage): void {
  if (isIllFormed(name)) throw unsupported('celery', 'name', 'it has half a surrogate pair');
  // It is a header of the message, and RabbitMQ's client has 64 kB for all of them.
  if (Buffer.byteLength(name) > 2000) throw unsupported('celery', 'name', 'it must be at most 2,000 bytes long');
  if (retries !== undefined) {
    throw unsupported(
      'celery',
      'retries',
      'the task itself decides in Python, by autoretry_for or self.retry(). Where "retries" comes from ' +
        'backgroundTasks(), give the task { retries: 0 }',
    );
  }
  if (key !== undefined) {
    throw unsupported('celery', 'key', 'Celery does not tell which tasks are queued: make the Python task idempotent');
  }
}

/** A worker pickles the arguments for its pool. At some 500 levels that fails, it exits, and the next one takes the message. */
const deepest = 200;

function isDeeper(value: unknown, levels: number): boolean {
  return isObject(value) && (levels < 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1)));
}

/** With microseconds, since Celery reads the digits after the point as a count of them. */
function eta(delay = 0): string | null {
  if (delay === 0) return null;
  const time = wallClockTime() + Math.ceil(delay);
  if (time > latest) throw unsupported('celery', 'delay', `Python has no date that is ${delay} ms away`);
  return new Date(time).toISOString().replace('Z', '000+00:00');
}

const latest = Date.UTC(9999, 0);
