// What the types of enqueue() promise to users. Compiled, never run: each line compiles, or is marked as one that must not.

import type { Response } from 'express';
import {
  type BackgroundTasks,
  backgroundTasks,
  type Enqueue,
  enqueue,
  type RemoteTask,
  type Serializable,
  type SerializableArguments,
  type Task,
  type TaskEngine,
  type TaskRecord,
  type TaskWorker,
  task,
  taskStatus,
} from 'express-background-tasks';

/** Compiles only if the two types are the same, so that an `any` is noticed. */
type Same<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? [] : [never];
function same<X, Y>(..._: Same<X, Y>): void {}

interface Mail {
  to: string;
  cc?: string[];
  priority: 'high' | 'low' | null;
}

interface TreeOf<T> {
  value: T;
  children: TreeOf<T>[];
}

type Json = string | number | boolean | null | Json[] | { [name: string]: Json };

export async function argumentsOfEnqueue({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const send = task('send', async (mail: Mail, copies?: number) => `${mail.to} ${copies}`);
  const enqueued = await tasks.enqueue(send, { to: 'ann@example.com', priority: null });
  same<typeof enqueued, { id: string }>();
  const mail: Mail = { to: 'ann@example.com', cc: [], priority: 'high' };
  await tasks.enqueue(send, mail, 2);
  await tasks.enqueue(send.with({ delay: 1000, priority: 1, key: 'ann', retries: { limit: 3 } }), mail);
  await tasks.enqueue(task('nothing', () => {}));
  await tasks.enqueue(
    task('rest', (..._all: number[]) => {}),
    1,
    2,
    3,
  );
  await tasks.enqueue(
    task('union', (_value: string | { a: [number, string] }) => {}),
    { a: [1, 'b'] },
  );
  await tasks.enqueue(
    task('readonly', (_list: readonly string[]) => {}),
    ['a'] as const,
  );
  await tasks.enqueue(
    task('record', (_map: Record<string, number>) => {}),
    { a: 1 },
  );
  const json: Json = { a: [1, null] };
  await tasks.enqueue(
    task('json', (_value: Json) => {}),
    json,
  );
  await tasks.enqueue(
    task('unknown', (_value: unknown) => {}),
    1,
  );

  // @ts-expect-error: too few arguments.
  await tasks.enqueue(send);
  // @ts-expect-error: too many arguments.
  await tasks.enqueue(send, mail, 2, 3);
  // @ts-expect-error: the wrong type.
  await tasks.enqueue(send, 'ann@example.com');
  // @ts-expect-error: the wrong type inside an object.
  await tasks.enqueue(send, { to: 'ann@example.com', priority: 'urgent' });
}

export async function whatIsNotJson({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const date = task('date', (_at: Date) => {});
  // @ts-expect-error: a Date comes out as text.
  await tasks.enqueue(date, new Date());
  const event = task('event', (_event: { at: Date }) => {});
  // @ts-expect-error: a Date inside an object.
  await tasks.enqueue(event, { at: new Date() });
  const map = task('map', (_map: Map<string, string>) => {});
  // @ts-expect-error: a Map comes out empty.
  await tasks.enqueue(map, new Map());
  const buffer = task('buffer', (_bytes: Buffer) => {});
  // @ts-expect-error: a Buffer comes out as something else.
  await tasks.enqueue(buffer, Buffer.from('a'));
  const bigint = task('bigint', (_id: bigint) => {});
  // @ts-expect-error: JSON has no BigInt.
  await tasks.enqueue(bigint, 1n);
  const symbol = task('symbol', (_id: symbol) => {});
  // @ts-expect-error: JSON has no symbols.
  await tasks.enqueue(symbol, Symbol('a'));
  const callback = task('callback', (_callback: () => void) => {});
  // @ts-expect-error: a function stays in its process.
  await tasks.enqueue(callback, () => {});
  const hooks = task('hooks', (_hooks: { done(): void }) => {});
  // @ts-expect-error: a function inside an object.
  await tasks.enqueue(hooks, { done() {} });
  const holes = task('holes', (_list: (string | undefined)[]) => {});
  // @ts-expect-error: undefined in an array comes out as null.
  await tasks.enqueue(holes, ['a', undefined]);
  const promise = task('promise', (_value: Promise<string>) => {});
  // @ts-expect-error: a promise is to be awaited first.
  await tasks.enqueue(promise, Promise.resolve('a'));
  const tree = task('tree', (_tree: TreeOf<Date>) => {});
  // @ts-expect-error: a Date in a type that holds itself.
  await tasks.enqueue(tree, { value: new Date(), children: [] });
}

export async function whatIsNoTask({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  // @ts-expect-error: a function has no name that another process knows.
  await tasks.enqueue((_to: string) => {}, 'ann@example.com');
  // @ts-expect-error: a name alone says nothing of the arguments.
  await tasks.enqueue('send', 'ann@example.com');
}

/** As an application knows them: other fields of it are of no interest to the task. */
interface Order {
  readonly id: number;
  lines: readonly { sku: string; count: number }[];
  note?: string | undefined;
}

type UserId = string & { readonly brand: unique symbol };
enum Size {
  small,
  large,
}

export async function whatIsJson({ locals: { backgroundTasks: tasks } }: Response, userId: UserId): Promise<void> {
  const order: Order = { id: 1, lines: [{ sku: 'a', count: 1 }] };
  const ship = task('ship', (_order: Order, _tags: readonly string[]) => {});
  await tasks.enqueue(ship, order, ['fragile']);
  await tasks.enqueue(ship, order, ['fragile'] as const);
  await tasks.enqueue(ship, { ...order, note: undefined }, []);
  await tasks.enqueue(
    task('all', (..._orders: readonly Order[]) => {}),
    order,
    order,
  );
  const tree = task('tree', (_tree: TreeOf<Order>) => {});
  await tasks.enqueue(tree, { value: order, children: [{ value: order, children: [] }] });
  await tasks.enqueue(
    task('brand', (_id: UserId, _size: Size) => {}),
    userId,
    Size.large,
  );
  await tasks.enqueue(
    task('pair', (_pair: [name: string, width?: number]) => {}),
    ['a'],
  );
  // biome-ignore lint/suspicious/noExplicitAny: users have it.
  const loose: { anything: any; nothing?: never } = { anything: order };
  await tasks.enqueue(
    task('loose', (_loose: typeof loose) => {}),
    loose,
  );
  const mode = task('mode', (_mode: 'fast' | 'slow', _options: { depth: 1 | 2 }) => {});
  await tasks.enqueue(mode, 'fast', { depth: 2 });
  // @ts-expect-error: no such depth.
  await tasks.enqueue(mode, 'fast', { depth: 3 });
  // @ts-expect-error: an unknown property.
  await tasks.enqueue(mode, 'fast', { depth: 2, width: 1 });

  // What is JSON in spite of the rest of its type.
  const since = task('since', (_at: string | Date) => {});
  await tasks.enqueue(since, '2026-01-01');
  // @ts-expect-error: the other half of it.
  await tasks.enqueue(since, new Date());
  const fetchAll = task('fetch-all', (_options: { url: string; onPage?: () => void }) => {});
  await tasks.enqueue(fetchAll, { url: '/' });
  // @ts-expect-error: a function.
  await tasks.enqueue(fetchAll, { url: '/', onPage: () => {} });
}

export async function whatMayBeLeftOut({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const optional = task('optional', (_id: number, _to?: string) => {});
  await tasks.enqueue(optional, 1);
  await tasks.enqueue(optional, 1, 'ann@example.com');
  await tasks.enqueue(optional, 1, undefined);
  const to: string | undefined = [][0];
  await tasks.enqueue(optional, 1, to);
  // @ts-expect-error: the wrong type.
  await tasks.enqueue(optional, 1, 2);
  const required = task('required', (_to: string | undefined, _id: number) => {});
  // @ts-expect-error: JSON has no undefined.
  await tasks.enqueue(required, undefined, 1);
}

export async function defaultParametersOfEnqueue({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const withDefault = task('default', async (name: string, digits = 3) => name + digits.toFixed());
  await tasks.enqueue(withDefault, 'a');
  await tasks.enqueue(withDefault, 'a', 4);
  await tasks.enqueue(withDefault, 'a', undefined);
  // @ts-expect-error: the wrong type.
  await tasks.enqueue(withDefault, 'a', '4');
  await tasks.enqueue(
    task('in place', async (name: string, digits = 3) => name + digits.toFixed()),
    'a',
    4,
  );
}

interface Mails {
  welcome: [to: string];
  invoice: [to: string, order: number, copy?: boolean];
}

type JsonValue = string | number | boolean | null | JsonValue[] | { [name: string]: JsonValue };

export async function wrappers({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const mail = task('mail', (_to: string, _copies?: number) => {});
  const dated = task('date', (_at: Date) => {});

  /** Checks its arguments as enqueue() does. */
  function send<A extends unknown[]>(
    given: Task<A> | RemoteTask<A>,
    ...args: SerializableArguments<A>
  ): Promise<{ id: string }> {
    return tasks.enqueue(given, ...args);
  }
  same<ReturnType<typeof send>, Promise<{ id: string }>>();
  await send(mail, 'ann@example.com');
  await send(mail, 'ann@example.com', 2);
  await send(mail, 'ann@example.com', undefined);
  await send(task<[path: string]>('images.resize'), '/a.png');
  // @ts-expect-error: the wrong type.
  await send(mail, 7);
  // @ts-expect-error: too few arguments.
  await send(mail);
  // @ts-expect-error: a Date comes out as text.
  await send(dated, new Date());

  /** What everybody writes first: what is no JSON is left to the running program. */
  async function sendAndLog<A extends unknown[], R>(given: Task<A, R>, ...args: A): Promise<string> {
    const { id } = await tasks.enqueue(given, ...args);
    console.log(given.name, args, id);
    return id;
  }
  await sendAndLog(mail, 'ann@example.com', 2);
  // @ts-expect-error: the wrong type.
  await sendAndLog(mail, 7);
  await sendAndLog(dated, new Date());

  /** With a type for JSON of its own. */
  function sendJson<A extends JsonValue[]>(given: Task<A>, ...args: A): Promise<{ id: string }> {
    return tasks.enqueue(given.with({ priority: 1 }), ...args);
  }
  await sendJson(mail, 'ann@example.com', 2);
  function sendOrders<A extends Order[]>(given: RemoteTask<A>, ...args: A): Promise<{ id: string }> {
    return tasks.enqueue(given, ...args);
  }
  await sendOrders(task<[Order]>('ship'), { id: 1, lines: [] });
  function sendDates<A extends Date[]>(given: Task<A>, ...args: A): Promise<{ id: string }> {
    // @ts-expect-error: whatever they are, they are Dates.
    return tasks.enqueue(given, ...args);
  }
  await sendDates(dated, new Date());

  /** For tasks with one argument, or whose first one is known. */
  function sendOne<T>(given: Task<[T]>, value: Serializable<T>): Promise<{ id: string }> {
    return tasks.enqueue(given, value);
  }
  await sendOne(
    task('one', (_order: Order) => {}),
    { id: 1, lines: [] },
  );
  // @ts-expect-error: a Date comes out as text.
  await sendOne(dated, new Date());
  function sendFor<T>(given: Task<[user: string, T]>, value: Serializable<T>): Promise<{ id: string }> {
    return tasks.enqueue(given, 'ann', value);
  }
  await sendFor(
    task('two', (_user: string, _count: number) => {}),
    2,
  );
  function sendLater<A extends unknown[]>(given: Task<A>): (...args: SerializableArguments<A>) => void {
    return (...args) => void tasks.enqueue(given, ...args);
  }
  sendLater(mail)('ann@example.com', 1);
  // @ts-expect-error: the wrong type.
  sendLater(mail)(1);

  /** Around a table of tasks. */
  function sendOf<K extends keyof Mails>(
    table: { [N in keyof Mails]: RemoteTask<Mails[N]> },
    kind: K,
    ...args: SerializableArguments<Mails[K]>
  ): Promise<{ id: string }> {
    const given: RemoteTask<Mails[K]> = table[kind];
    return tasks.enqueue(given, ...args);
  }
  const table = { welcome: task<[to: string]>('welcome'), invoice: task<Mails['invoice']>('invoice') };
  await sendOf(table, 'invoice', 'ann@example.com', 1);
  // @ts-expect-error: too few arguments.
  await sendOf(table, 'invoice', 'ann@example.com');

  /** Without a name for the types of its arguments. */
  const sendMail = (...args: Parameters<typeof mail>): Promise<{ id: string }> => tasks.enqueue(mail, ...args);
  await sendMail('ann@example.com');

  const around: Enqueue = (given, ...args) => tasks.enqueue(given, ...args);
  await around(mail, 'ann@example.com');
  class Engine {
    enqueue<A extends readonly unknown[]>(given: Task<A> | RemoteTask<A>, ...args: A): Promise<{ id: string }> {
      return tasks.enqueue(given, ...args);
    }
  }
  const { enqueue: ofAClass }: { enqueue: Enqueue } = new Engine();
  await ofAClass(mail, 'ann@example.com');
}

export async function wherever(engine: TaskEngine): Promise<void> {
  same<BackgroundTasks['enqueue'], Enqueue>();
  same<TaskEngine['enqueue'], Enqueue>();
  same<typeof enqueue, Enqueue>();
  const mail = task('mail', (_to: string, copies = 1) => copies.toFixed());
  same<typeof enqueued, { id: string }>();
  const enqueued = await engine.enqueue(mail, 'ann@example.com', undefined);
  await enqueue(mail, 'ann@example.com', 2);
  // @ts-expect-error: the wrong type.
  await engine.enqueue(mail, 'ann@example.com', '2');
  // @ts-expect-error: the wrong type.
  await enqueue(mail, 'ann@example.com', '2');
  const dated = task('date', (_at: Date) => {});
  // @ts-expect-error: a Date comes out as text.
  await engine.enqueue(dated, new Date());
  // @ts-expect-error: a Date comes out as text.
  await enqueue(dated, new Date());
}

export async function remoteTasks({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const resize = task<[path: string, width: number]>('images.resize', { timeout: 1000 });
  same<typeof resize, RemoteTask<[path: string, width: number]>>();
  same<typeof resize.name, string>();
  await tasks.enqueue(resize, '/a.png', 200);
  await tasks.enqueue(resize.with({ priority: 5 }), '/a.png', 200);
  // @ts-expect-error: the wrong type.
  await tasks.enqueue(resize, '/a.png', '200');
  // @ts-expect-error: too few arguments.
  await tasks.enqueue(resize, '/a.png');
  // @ts-expect-error: its handler is elsewhere: add() has nothing to run.
  tasks.add(resize, '/a.png', 200);
  // @ts-expect-error: and it cannot be called.
  resize('/a.png', 200);
}

export async function engines(engine: TaskEngine, send: Task<[mail: Mail], Promise<void>>): Promise<void> {
  backgroundTasks({ engine });
  // @ts-expect-error: no engine.
  backgroundTasks({ engine: 'sqlite' });

  const worker = await engine.work([send, task('other', (_count: number) => {})], {
    concurrency: 5,
    onError: () => {},
  });
  same<typeof worker, TaskWorker>();
  same<ReturnType<typeof worker.close>, Promise<void>>();
  await worker.close({ timeout: 1000 });
  // @ts-expect-error: what has no handler cannot be worked on.
  await engine.work([task<[number]>('remote')]);
  // @ts-expect-error: a plain function has no name.
  await engine.work([() => {}]);
  // @ts-expect-error: an unknown option.
  await engine.work([send], { threads: 2 });

  const record = await engine.get('id');
  same<typeof record, TaskRecord | undefined>();
  same<NonNullable<typeof record>['state'], 'queued' | 'running' | 'succeeded' | 'failed' | 'cancelled'>();
  same<NonNullable<typeof record>['result'], unknown>();

  taskStatus(engine);
  taskStatus(engine, { result: true });
  // @ts-expect-error: an unknown option.
  taskStatus(engine, { results: true });
}

export async function manyLists(engine: TaskEngine, send: Task<[to: string, copies?: number]>): Promise<void> {
  const rows = [['ann@example.com'], ['bob@example.com', 2]] as const;
  same<Awaited<ReturnType<typeof engine.enqueueMany>>, { id: string }[]>();
  await engine.enqueueMany(send, rows);
  const lists: readonly (readonly [string, number?])[] = rows;
  await engine.enqueueMany(send, lists);
  await engine.within({}).enqueueMany(send, [['ann@example.com', 1]]);
  // @ts-expect-error: the wrong type.
  await engine.enqueueMany(send, [['ann@example.com', '1']]);
  // @ts-expect-error: no list of arguments.
  await engine.enqueueMany(send, ['ann@example.com']);
  const dated = task('at', (_at: Date) => {});
  // @ts-expect-error: "a Date is not JSON: take a string, and pass date.toISOString()"
  await engine.enqueueMany(dated, [[new Date()]]);
}

export function enqueueAll<A extends unknown[]>(
  engine: TaskEngine,
  of: Task<A>,
  lists: SerializableArguments<A>[],
): Promise<{ id: string }[]> {
  return engine.enqueueMany(of, lists);
}
