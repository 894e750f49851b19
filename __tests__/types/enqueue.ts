// What the types of enqueue() promise to users. Compiled, never run: each line compiles, or is marked as one that must not.

import type { Response } from 'express';
import {
  backgroundTasks,
  type RemoteTask,
  type Serializable,
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

export async function aWrapper({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  function send<A extends unknown[]>(t: Task<A> | RemoteTask<A>, ...a: A & Serializable<A>): Promise<{ id: string }> {
    return tasks.enqueue<A>(t, ...a);
  }
  const mail = task('mail', (_to: string, _copies?: number) => {});
  const sent = await send(mail, 'ann@example.com');
  same<typeof sent, { id: string }>();
  await send(mail, 'ann@example.com', 2);
  await send(task<[path: string]>('images.resize'), '/a.png');
  // @ts-expect-error: the wrong type.
  await send(mail, 7);
  const date = task('date', (_at: Date) => {});
  // @ts-expect-error: a Date comes out as text.
  await send(date, new Date());
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
  same<NonNullable<typeof record>['state'], 'queued' | 'running' | 'succeeded' | 'failed'>();
  same<NonNullable<typeof record>['result'], unknown>();

  taskStatus(engine);
  taskStatus(engine, { result: true });
  // @ts-expect-error: an unknown option.
  taskStatus(engine, { results: true });
}
