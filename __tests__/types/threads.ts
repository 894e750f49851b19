// What the types promise of tasks in threads. Compiled, never run, as api.ts.

import type { BackgroundTasks, Task, TaskEngine, TaskOutcome } from 'express-background-tasks';
import { type ThreadPool, threads } from 'express-background-tasks/threads';

type Same<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? [] : [never];
function same<X, Y>(..._: Same<X, Y>): void {}

/** Of a module. */
type Resize = (file: string, width?: number) => { file: string; width: number };
type Fetch = (url: string) => Promise<number>;

const pool = threads({ maxThreads: 2, resourceLimits: { maxOldGenerationSizeMb: 100 }, argv: ['--one'] as const });
same<typeof pool, ThreadPool>();

const resize = pool.task<Resize>('resize', new URL('file:///resize.js'), { timeout: 1000, export: 'resize' });

export async function aTaskOfAThread(tasks: BackgroundTasks, engine: TaskEngine): Promise<void> {
  const typed: Task<[file: string, width?: number | undefined], Promise<{ file: string; width: number }>> = resize;
  tasks.add(typed, 'a.jpg');
  const handle = tasks.add(resize, 'a.jpg', 800);
  same<Awaited<typeof handle.finished>, TaskOutcome<{ file: string; width: number }>>();
  // @ts-expect-error: the wrong type.
  tasks.add(resize, 'a.jpg', '800');
  // @ts-expect-error: too few arguments.
  await engine.enqueue(resize);
  await engine.enqueue(resize, 'a.jpg', 800);
  await engine.work([resize, resize.with({ retries: 2 })]);
  const { width } = await resize('a.jpg');
  same<typeof width, number>();

  const load = pool.task<Fetch>('load', '/load.js');
  same<ReturnType<typeof load>, Promise<number>>();
  same<Parameters<typeof load>, [url: string]>();
}

export function mistakes(): void {
  // @ts-expect-error: an unknown option.
  threads({ maxThread: 2 });
  // @ts-expect-error: an unknown option.
  pool.task<Resize>('resize', '/resize.js', { exports: 'resize' });
  // @ts-expect-error: the export is for pool.task() alone.
  resize.with({ export: 'other' });
  // @ts-expect-error: where is it?
  pool.task<Resize>('resize');
  // @ts-expect-error: no function.
  pool.task<string>('resize', '/resize.js');
}
