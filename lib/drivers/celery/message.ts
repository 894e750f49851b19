// A task as Celery's workers read it, whatever the broker: message protocol 2.
// https://docs.celeryq.dev/en/stable/internals/protocol.html

import { hostname } from 'node:os';
import { wallClockTime } from '../../clock.js';
import { unsupported } from '../../engine/calls.js';
import type { Headers } from '../../engine/headers.js';
import type { TaskMessage } from '../../engine/message.js';
import { serializeArguments } from '../../engine/serialize.js';
import { BackgroundTasksError } from '../../errors.js';
import { isObject } from '../../foreign-value.js';
import { countPositional } from './kwargs.js';
import { isIllFormed } from './queue.js';

/** Puts messages into one queue. Connects at the first message, and again at the first one after the connection was lost. */
export interface CeleryTransport {
  /** Translates a task's priority. @throws BackgroundTasksError `ERR_INVALID_OPTION` for one that the broker does not have. */
  priority(asked: number): number;
  /** Resolves once the broker answers, and has the queue. */
  ready(late: AbortSignal): Promise<void>;
  /** Resolves once the broker has stored the message. When `late` is aborted, cuts the connection over which it is sent. */
  send(message: CeleryMessage, late: AbortSignal): Promise<void>;
  /** Must not be called while a message is being sent. */
  close(): Promise<void>;
}

/**
 * The packages for the brokers are optional: only the one that is needed is loaded. Bundlers accept a package that they do not
 * find if the `require` is directly inside a `try`.
 */
export function missingPackage(name: string, cause: unknown): BackgroundTasksError {
  const message = `celery(): the package ${name} is needed and could not be loaded: npm install ${name}`;
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
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for an option that Celery does not have, `ERR_TASK_NOT_SERIALIZABLE` for
 * arguments that its workers could not take.
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
  // Without a limit here, that of the Python task applies: Celery has no word for none.
  const limit = message.timeout ? message.timeout / 1000 : null;
  const headers = {
    ...foreignHeaders(message.headers),
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
    // Hard and soft. Without a soft limit here, a longer soft limit of the Python task would delay the hard one.
    timelimit: [limit, limit],
    argsrepr: excerpt(args),
    kwargsrepr: excerpt(kwargs),
    origin: `gen${process.pid}@${hostname()}`,
    ignore_result: false,
  };
  const body = `[${args},${kwargs},{"callbacks":null,"errbacks":null,"chain":null,"chord":null}]`;
  return { id, priority, headers, body };
}

/**
 * The message's own headers stand beside Celery's, as those do that `apply_async(headers=...)` gives: a worker makes attributes
 * of the request of them all. So names that mean something to Celery or, in capitals, to RabbitMQ are left out.
 */
function foreignHeaders(headers: Headers = {}): Headers {
  return Object.fromEntries(Object.entries(headers).filter(([name]) => !reserved.has(name) && !name.startsWith('_')));
}

const reserved = new Set(
  `lang task id root_id parent_id group group_index shadow eta expires retries timelimit argsrepr kwargsrepr origin ignore_result
  args kwargs callbacks errbacks chain chord called_directly correlation_id reply_to delivery_info properties headers hostname
  is_eager logfile loglevel replaced_task_nesting taskset utc children stamps stamped_headers compression as_execution_options
  clear get update CC BCC`.split(/\s+/),
);

/** For people who look at the queue. Python could not decode half a character at the end. */
function excerpt(json: string): string {
  return json.slice(0, 1024).replace(/[\ud800-\udbff]$/, '');
}

function refuse({ name, retries, key }: TaskMessage): void {
  if (isIllFormed(name)) throw unsupported('celery', 'name', 'it has half a surrogate pair');
  // The name is in the headers, for which amqplib has 64 kB.
  if (Buffer.byteLength(name) > 2000) throw unsupported('celery', 'name', 'it must be at most 2,000 bytes long');
  if (retries !== undefined) {
    throw unsupported(
      'celery',
      'retries',
      'the Python task decides, with autoretry_for or self.retry(). If "retries" comes from backgroundTasks(), ' +
        'give the task { retries: 0 }',
    );
  }
  if (key !== undefined) {
    throw unsupported('celery', 'key', 'Celery cannot say which tasks are queued: make the Python task idempotent');
  }
}

/** A worker pickles the arguments for its pool. At about 500 levels that fails, the worker exits, and the next one takes over. */
const deepest = 200;

function isDeeper(value: unknown, levels: number): boolean {
  return isObject(value) && (levels < 0 || Object.values(value).some((inner) => isDeeper(inner, levels - 1)));
}

/** With microseconds, since Celery takes whatever digits follow the point for microseconds. */
function eta(delay = 0): string | null {
  if (delay === 0) return null;
  return new Date(wallClockTime() + Math.ceil(delay)).toISOString().replace('Z', '000+00:00');
}
