// What functions a task can be made of, and what their types become. Compiled, never run.

import type { Response } from 'express';
import { after, type Task, type TaskHandle, task } from 'express-background-tasks';

/** Compiles only if the two types are the same, so that an `any` is noticed. */
type Same<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? [] : [never];
function same<X, Y>(..._: Same<X, Y>): void {}

export function optionalAndRest({ locals: { backgroundTasks: tasks } }: Response, all: string[]): void {
  const withOptional = (a: string, b?: number): string => `${a}${b}`;
  tasks.add(withOptional, 'a');
  tasks.add(withOptional, 'a', 1);
  tasks.add(withOptional, 'a', undefined);
  // @ts-expect-error: the wrong type of an optional argument.
  tasks.add(withOptional, 'a', 'b');

  const withRest = (...all: string[]): string[] => all;
  tasks.add(withRest);
  tasks.add(withRest, 'a', 'b');
  tasks.add(withRest, ...all);
  // @ts-expect-error: the wrong type of a rest argument.
  tasks.add(withRest, 'a', 1);
  const withReadonly = (...all: readonly string[]): number => all.length;
  tasks.add(withReadonly, 'a', 'b');
  tasks.add(withReadonly, ...all);
  tasks.add(task('readonly', withReadonly), 'a', 'b');
  const withTuple = (...[a, b]: readonly [a: string, b?: number]): string => `${a}${b}`;
  tasks.add(withTuple, 'a', 1);
  // @ts-expect-error: the wrong type of a rest argument.
  tasks.add(withReadonly, 1);
  const withBoth = task('both', (a: string, ...counts: number[]) => counts.length + a.length);
  same<typeof withBoth, Task<[a: string, ...counts: number[]], number>>();
  tasks.add(withBoth, 'a', 1, 2);
  // @ts-expect-error: the wrong type of a rest argument.
  after(withBoth, 'a', '1');
}

export function defaults({ locals: { backgroundTasks: tasks } }: Response): void {
  const pad = task('pad', async (text: string, width = 3) => text.padStart(width, width.toFixed()));
  same<typeof pad, Task<[text: string, width?: number | undefined], Promise<string>>>();
  tasks.add(pad, 'a');
  tasks.add(pad, 'a', 4);
  // @ts-expect-error: the wrong type.
  tasks.add(pad, 'a', '4');
  // @ts-expect-error: the wrong type.
  after(pad, 'a', '4');
  void pad('a', 4);
  // @ts-expect-error: the wrong type.
  void pad('a', '4');
  const wider = pad.with({ timeout: 1000 });
  // @ts-expect-error: the wrong type.
  tasks.add(wider, 'a', '4');

  const only = task('only', (width = 3) => width.toFixed());
  same<typeof only, Task<[width?: number | undefined], string>>();
  const options = task('options', ({ width = 3, text }: { width?: number; text: string }, tags: string[] = []) => {
    tags.push(text.padStart(width));
    return tags;
  });
  same<typeof options, Task<[{ width?: number; text: string }, tags?: string[] | undefined], string[]>>();
  const declared = task('declared', function handler(text: string, width = 3) {
    return text + width.toFixed();
  });
  same<typeof declared, Task<[text: string, width?: number | undefined], string>>();

  tasks.add((text: string, width = 3) => text + width.toFixed(), 'a');
  tasks.add((text: string, width = 3) => text + width.toFixed(), 'a', 4);
  tasks.add(async (width = 3) => width.toFixed());
  // @ts-expect-error: the wrong type.
  tasks.add((text: string, width = 3) => text + width.toFixed(), 'a', '4');
  const handle = after((text: string, width = 3) => text + width.toFixed(), 'a');
  same<typeof handle, TaskHandle<string>>();
  tasks.add(
    task('in place', (text: string, width = 3) => text + width.toFixed()),
    'a',
    4,
  );
}

export function writtenInPlace({ locals: { backgroundTasks: tasks } }: Response): void {
  // The parameters follow from the arguments.
  tasks.add((amount) => amount.toFixed(2), 1);
  tasks.add(async (amount, { digits }) => amount.toFixed(digits), 1, { digits: 2 });
  // @ts-expect-error: a number has no such method.
  tasks.add((amount) => amount.toUpperCase(), 1);
  after((list) => list.map((value) => value.toFixed()), [1, 2]);
  const greet: Task<[name: string, times: number], string> = task('greet', (name, times) => name.repeat(times));
  same<Parameters<typeof greet>, [name: string, times: number]>();
  // @ts-expect-error: nothing says what its parameter is.
  task('untyped', (amount) => console.log(amount));
}

export function literals({ locals: { backgroundTasks: tasks } }: Response): void {
  const move = (direction: 'left' | 'right', steps: 1 | 2) => `${direction} ${steps}` as const;
  const handle = tasks.add(move, 'left', 2);
  same<typeof handle, TaskHandle<'left 1' | 'left 2' | 'right 1' | 'right 2'>>();
  // @ts-expect-error: no such direction.
  tasks.add(move, 'up', 1);
  const turn = task('turn', (how: { to: 'left' | 'right'; at: readonly ['a' | 'b', number] }) => how.to);
  tasks.add(turn, { to: 'left', at: ['a', 1] });
  // @ts-expect-error: no such direction.
  tasks.add(turn, { to: 'up', at: ['a', 1] });
}

export async function generics({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const longest = async <T extends { length: number }>(a: T, b: T): Promise<T> => (a.length > b.length ? a : b);
  const ofTexts = tasks.add(longest, 'a', 'bc');
  same<typeof ofTexts, TaskHandle<string>>();
  const ofLists = after(longest, [1], [2, 3]);
  same<typeof ofLists, TaskHandle<number[]>>();
  // @ts-expect-error: a number has no length.
  tasks.add(longest, 1, 2);

  /** Around add(). */
  function addAll<A extends unknown[], R>(run: (...args: A) => R, lists: A[]): TaskHandle<Awaited<R>>[] {
    return lists.map((args) => tasks.add(run, ...args));
  }
  const added = addAll((a: number, b = 2) => a + b, [[1], [1, 3]]);
  same<typeof added, TaskHandle<number>[]>();
  /** Around tasks. */
  const addNow = <A extends unknown[], R>(defined: Task<A, R>, ...args: A): TaskHandle<Awaited<R>> =>
    after(defined.with({ timeout: 10 }), ...args);
  same<ReturnType<typeof addNow>, TaskHandle>();
  /** Around task(). */
  function patient<A extends unknown[], R>(name: string, handler: (...args: A) => R): Task<A, R> {
    return task(name, handler, { timeout: 60_000 });
  }
  same<ReturnType<typeof patient>, Task<unknown[], unknown>>();
  const typed = patient('typed', async (text: string) => text.length);
  same<typeof typed, Task<[text: string], Promise<number>>>();
}

export async function whatTheyReturn({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  same<ReturnType<typeof ofNothing>, TaskHandle<void>>();
  function ofNothing() {
    return tasks.add(() => {});
  }
  const nested = tasks.add(async () => Promise.resolve(Promise.resolve(1)));
  same<typeof nested, TaskHandle<number>>();
  const thenable = tasks.add((): PromiseLike<Date> => Promise.resolve(new Date()));
  same<typeof thenable, TaskHandle<Date>>();
  const maybe = tasks.add((): string | Promise<number> => 'a');
  same<typeof maybe, TaskHandle<string | number>>();
  const outcome = await maybe.finished;
  // @ts-expect-error: it may not have succeeded.
  console.log(outcome.value);
  const never = tasks.add((): never => {
    throw new Error('always');
  });
  const handles: TaskHandle[] = [nested, thenable, maybe, never];
  console.log(handles.length);
}

class Counter {
  #count = 0;

  add(this: Counter, step: number): number {
    this.#count += step;
    return this.#count;
  }

  readonly reset = (): void => {
    this.#count = 0;
  };
}

export function methods({ locals: { backgroundTasks: tasks } }: Response, counter: Counter): void {
  // @ts-expect-error: without its counter it fails.
  tasks.add(counter.add, 1);
  // @ts-expect-error: without its counter it fails.
  after(counter.add, 1);
  // @ts-expect-error: without its counter it fails.
  task('count', counter.add);
  task('this', function handler(step: number) {
    // @ts-expect-error: a task has no `this`.
    return this.add(step);
  });
  tasks.add((step: number) => counter.add(step), 1);
  tasks.add(counter.add.bind(counter), 1);
  tasks.add(counter.reset);
  tasks.add(function handler(this: void, step: number) {
    return step;
  }, 1);
  const handle = tasks.add(Counter.prototype.add.bind(counter), 1);
  same<typeof handle, TaskHandle<number>>();
}

export function whatEverybodyHas({ locals: { backgroundTasks: tasks } }: Response): void {
  tasks.add(console.log, 'a', 1);
  tasks.add(Math.max, 1, 2, 3);
  tasks.add(Number.parseInt, '10', 16);
  tasks.add(fetch, 'http://127.0.0.1', { method: 'POST' });
  // @ts-expect-error: no URL.
  tasks.add(fetch, 1);
  // @ts-expect-error: a class is not called.
  tasks.add(Counter);
}
