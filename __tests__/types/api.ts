// What the types promise to users. Compiled, never run: each line compiles, or is marked as one that must not.
// The project setups compile this file as well, against the packed types, with other versions of TypeScript and Express.

import { createServer } from 'node:http';
import express, { type Request, type Response } from 'express';
import {
  after,
  BackgroundTasksError,
  type BackgroundTasksMiddleware,
  backgroundTasks,
  type CloseReport,
  currentTask,
  type ErrorCode,
  type ErrorContext,
  type ResponseOutcome,
  type RetryOptions,
  type Task,
  type TaskContext,
  type TaskHandle,
  type TaskInfo,
  type TaskOutcome,
  type TaskStatus,
  type TaskTrace,
  task,
} from 'express-background-tasks';

/** Compiles only if the two types are the same, so that an `any` is noticed. */
type Same<X, Y> = (<T>() => T extends X ? 1 : 2) extends <T>() => T extends Y ? 1 : 2 ? [] : [never];
function same<X, Y>(..._: Same<X, Y>): void {}

function writeNotification(email: string, { message }: { message: string }): void {
  console.log(email, message);
}

export function theListOfAResponse(): void {
  const app = express();
  app.use(backgroundTasks());
  app.post('/send-notification/:email', (req, res) => {
    const { add } = res.locals.backgroundTasks;
    same<ReturnType<typeof add>, TaskHandle>();
    res.locals.backgroundTasks.add(writeNotification, String(req.params.email), { message: 'some notification' });
    // @ts-expect-error: there is no such method.
    res.locals.backgroundTasks.addTask(writeNotification);
    res.json({});
  });
  app.use((_req: Request, res: Response, next) => {
    // Other locals stay as they were.
    res.locals['user'] = 'ann';
    res.locals.backgroundTasks.add(() => {});
    next();
  });
  app.use('/sub', express.Router().use(backgroundTasks()));
}

export function argumentsOfAdd({ locals: { backgroundTasks: tasks } }: Response): void {
  tasks.add(() => {});
  tasks.add(async () => 1);
  tasks.add(writeNotification, 'ann@example.com', { message: 'hello' });
  // @ts-expect-error: too few arguments.
  tasks.add(writeNotification, 'ann@example.com');
  // @ts-expect-error: too many arguments.
  tasks.add(writeNotification, 'ann@example.com', { message: 'hello' }, 1);
  // @ts-expect-error: the wrong type.
  tasks.add(writeNotification, 1, { message: 'hello' });
  // @ts-expect-error: the wrong type inside an object.
  tasks.add(writeNotification, 'ann@example.com', { message: 1 });

  // @ts-expect-error: a call is no function.
  tasks.add(writeNotification('ann@example.com', { message: 'hello' }));
  // @ts-expect-error: a promise is no function.
  tasks.add(Promise.resolve());
  // @ts-expect-error: nothing is no function.
  tasks.add();
}

export async function handles({ locals: { backgroundTasks: tasks } }: Response): Promise<void> {
  const handle = tasks.add((year: number) => Promise.resolve({ year }), 2026);
  same<typeof handle, TaskHandle<{ year: number }>>();
  same<typeof handle.id, string>();
  same<typeof handle.name, string>();
  same<TaskStatus, 'pending' | 'running' | 'succeeded' | 'failed' | 'skipped' | 'cancelled' | 'abandoned'>();
  same<typeof handle.status, TaskStatus>();
  same<ReturnType<typeof handle.cancel>, boolean>();
  // @ts-expect-error: a handle is looked at, not changed.
  handle.status = 'failed';

  const outcome = await handle.finished;
  same<typeof outcome, TaskOutcome<{ year: number }>>();
  if (outcome.status === 'succeeded') same<typeof outcome.value, { year: number }>();
  if (outcome.status === 'failed' || outcome.status === 'abandoned') same<typeof outcome.error, unknown>();
  // @ts-expect-error: only a task that failed or was abandoned has an error.
  if (outcome.status === 'skipped') console.log(outcome.error);

  const kept = new Map<string, TaskHandle>([[handle.id, handle]]);
  for (const { finished } of kept.values()) same<typeof finished, Promise<TaskOutcome>>();
}

export function definedTasks({ locals: { backgroundTasks: tasks } }: Response): void {
  const resize = task('resize', async (file: string, width?: number) => ({ file, width }), { timeout: 1000 });
  const typed: Task<
    [file: string, width?: number | undefined],
    Promise<{ file: string; width: number | undefined }>
  > = resize;
  same<ReturnType<typeof resize>, Promise<{ file: string; width: number | undefined }>>();
  same<Parameters<typeof resize>, [file: string, width?: number | undefined]>();
  same<typeof resize.name, string>();

  const patient = resize.with({ timeout: 60_000, retries: { limit: 3 }, when: 'success' });
  same<typeof patient, typeof resize>();
  tasks.add(patient, 'a.png', 100);
  tasks.add(typed, 'a.png');
  // @ts-expect-error: the wrong type.
  tasks.add(patient, 'a.png', '100');
  // @ts-expect-error: too few arguments.
  void resize();
  // @ts-expect-error: an unknown option.
  resize.with({ timeOut: 1000 });
  // @ts-expect-error: an option of the wrong type.
  task('resize', () => {}, { timeout: '1s' });
  // @ts-expect-error: the name comes first.
  task(() => {});

  const handle = after(resize, 'a.png');
  same<typeof handle, TaskHandle<{ file: string; width: number | undefined }>>();
  after(writeNotification, 'ann@example.com', { message: 'hello' });
  // @ts-expect-error: too few arguments.
  after(writeNotification, 'ann@example.com');
  // @ts-expect-error: the wrong type.
  after(resize, 1);
}

export function insideATask(): void {
  const current = currentTask();
  same<typeof current, TaskContext | undefined>();
  // @ts-expect-error: there may be none.
  console.log(current.signal);
  if (current === undefined) return;
  same<typeof current.signal, AbortSignal>();
  same<typeof current.attempt, number>();
  const info: TaskInfo = current;
  console.log(info.name);
}

export function options(): void {
  const retries: RetryOptions = { limit: 3, minDelay: 10, maxDelay: 100, factor: 3, jitter: false };
  backgroundTasks({
    onError: async (error, context) => {
      same<typeof error, unknown>();
      same<typeof context, ErrorContext>();
      same<typeof context.task, TaskInfo>();
      console.error(error, context.req?.originalUrl, context.res?.statusCode);
    },
    when: ({ statusCode, completed, error }) => completed && statusCode < 400 && error === undefined,
    stopOnError: true,
    timeout: 30_000,
    retries,
    concurrency: 10,
    maxPending: Number.POSITIVE_INFINITY,
    waitUntil: (work) => same<typeof work, Promise<void>>(),
  });
  backgroundTasks({ when: 'always', retries: 2, timeout: undefined, logger: undefined, onError: undefined });

  // @ts-expect-error: an unknown option.
  backgroundTasks({ retry: 3 });
  // @ts-expect-error: no such moment.
  backgroundTasks({ when: 'never' });
  // @ts-expect-error: it must answer at once.
  backgroundTasks({ when: async (outcome: ResponseOutcome) => outcome.completed });
  // @ts-expect-error: milliseconds, not words.
  backgroundTasks({ timeout: '30s' });
  // @ts-expect-error: the limit is missing.
  backgroundTasks({ retries: { minDelay: 10 } });
  // @ts-expect-error: a logger has a method `error`.
  backgroundTasks({ logger: { log: () => {} } });
  // @ts-expect-error: a handler of errors is a function.
  backgroundTasks({ onError: 'log' });
}

export async function theMiddleware(): Promise<void> {
  const middleware = backgroundTasks();
  same<typeof middleware, BackgroundTasksMiddleware>();
  express().use('/api', middleware);
  same<ReturnType<typeof middleware.idle>, Promise<void>>();
  same<typeof middleware.stats.pending, number>();
  const report = await middleware.close({ timeout: 1000 });
  same<typeof report, CloseReport>();
  same<typeof report.abandoned, TaskInfo[]>();
  createServer((req, res) => middleware(req, res, () => res.end()));
  // @ts-expect-error: it calls on what follows.
  createServer(middleware);
  // @ts-expect-error: counts are looked at, not changed.
  middleware.stats.failed = 0;
  // @ts-expect-error: an unknown option.
  await middleware.close({ force: true });
}

export function errors(error: unknown): void {
  if (!(error instanceof BackgroundTasksError)) return;
  same<typeof error.code, ErrorCode>();
  same<typeof error.status, number | undefined>();
  // @ts-expect-error: no such code.
  console.log(error.code === 'ERR_NO_SUCH_CODE');
  const base: Error = error;
  console.log(base.message);
}

export function traces({ task: { name }, args, req, res, result, error }: TaskTrace): void {
  same<typeof name, string>();
  same<typeof args, readonly unknown[]>();
  console.log(req?.path, res?.statusCode, result, error);
}
