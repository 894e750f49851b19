// threads(): options in, a pool of threads out, whose tasks are made from functions in files of their own.

import { availableParallelism } from 'node:os';
import { type ResourceLimits, SHARE_ENV } from 'node:worker_threads';
import type { CloseOptions } from '../close-options.js';
import { BackgroundTasksError } from '../errors.js';
import { inspectShort, isObject } from '../foreign-value.js';
import { type Check, type Checks, checkOptions, copyOptions, isCount, isText, isTimeoutOrZero } from '../options.js';
import { type TaskOptions, taskOptionChecks } from '../task/options.js';
import { type Task, taskElsewhere } from '../task/task.js';
import type { AnyFunction } from '../task/types.js';
import { existingFile, pathOf } from './module-file.js';
import { Pool, type PoolOptions } from './pool.js';
import { workerFile } from './worker-file.js';

/** Options of piscina, by its names. */
export interface ThreadOptions {
  /** How many threads are kept when there is nothing to do. Default: half the number of CPUs, at least 1. */
  minThreads?: number | undefined;
  /** How many tasks run at the same time, each in a thread of its own. Default: 1.5 times the number of CPUs. */
  maxThreads?: number | undefined;
  /** How long a thread beyond `minThreads` waits for a task before it ends, in ms, or Infinity. Default 30000. */
  idleTimeout?: number | undefined;
  /** Limits of each thread. Beyond its heap limit a thread dies, and its task fails with `ERR_THREAD_DIED`. */
  resourceLimits?: ResourceLimits | undefined;
  /** `process.env` in the threads. Default: a copy of the one here. `SHARE_ENV` shares it. */
  env?: NodeJS.ProcessEnv | typeof SHARE_ENV | undefined;
  /** Is added to `process.argv` in the threads. */
  argv?: readonly string[] | undefined;
  /** Node's own options for the threads, such as `['--import', 'tsx']`. Default: those of the process. */
  execArgv?: readonly string[] | undefined;
}

export interface ThreadTaskOptions extends TaskOptions {
  /** Under which name the module exports the function. Default `'default'`. */
  export?: string | undefined;
}

export interface ThreadPool {
  /**
   * Makes a task of a function in a module of its own. F is the type of that function. Each attempt calls it in a thread; so does a
   * plain call of the task. Arguments and result are structured clones.
   *
   * @param module the `file:` URL or the absolute path of the module. Where there is no `.js` file, the `.ts` file of that name.
   * @throws BackgroundTasksError `ERR_INVALID_TASK` for a bad name or a module that is not there, `ERR_INVALID_OPTION`.
   * @example
   * const resize = pool.task<typeof import('./resize.js').default>('resize', new URL('./resize.js', import.meta.url));
   */
  task<F extends AnyFunction>(
    name: string,
    module: URL | string,
    options?: ThreadTaskOptions,
  ): Task<Parameters<F>, Promise<Awaited<ReturnType<F>>>>;
  /**
   * Waits until the tasks that wait and run have ended, and ends the threads. At the timeout their signals are aborted, and a thread
   * that has not ended a second later is terminated; these tasks fail with `ERR_TASK_ABANDONED`. A task that is called from now on
   * fails with `ERR_TASKS_CLOSED`. To be called once the middleware and the workers are closed. A pool that is not closed keeps no
   * process alive.
   *
   * Rejects with BackgroundTasksError `ERR_INVALID_OPTION` for bad options.
   */
  close(options?: CloseOptions): Promise<void>;
}

/**
 * A pool of threads for functions that compute. It starts them when the first task runs.
 *
 * @throws BackgroundTasksError `ERR_INVALID_OPTION` for invalid or unknown options.
 * @example
 * const pool = threads({ maxThreads: 2 });
 * const resize = pool.task<typeof import('./resize.js').default>('resize', new URL('./resize.js', import.meta.url));
 * res.locals.backgroundTasks.add(resize, 'a.jpg', 800);
 */
export function threads(options: ThreadOptions = {}): ThreadPool {
  const pool = new Pool(readOptions(options));
  return {
    task<F extends AnyFunction>(name: string, module: URL | string, taskOptions: ThreadTaskOptions = {}) {
      checkOptions('pool.task()', taskOptions, { ...taskOptionChecks, export: isText });
      const target = { task: name, module: findModule(name, module), exported: taskOptions.export ?? 'default' };
      // Of this type by the promise of whoever names F.
      const call = (...args: Parameters<F>) => pool.call(target, args) as Promise<Awaited<ReturnType<F>>>;
      return taskElsewhere('pool.task()', name, call, copyOptions<TaskOptions>(taskOptions, taskOptionChecks));
    },
    close: (closeOptions = {}) => pool.close(closeOptions),
  };
}

function findModule(name: string, module: unknown): string {
  const path = pathOf(module);
  const file = path === undefined ? undefined : existingFile(path);
  if (file !== undefined) return file;
  const expected =
    path === undefined
      ? `the module must be a file: URL or an absolute path, not ${inspectShort(module)}`
      : `there is no file ${path}`;
  throw new BackgroundTasksError('ERR_INVALID_TASK', `pool.task("${name}"): ${expected}`);
}

function readOptions(options: ThreadOptions): PoolOptions {
  checkOptions('threads()', options, optionChecks);
  const { minThreads, maxThreads, idleTimeout = 30_000, resourceLimits, env, argv, execArgv } = options;
  const most = maxThreads ?? Math.max(Math.ceil(availableParallelism() * 1.5), minThreads ?? 0);
  const least = minThreads ?? Math.min(Math.max(Math.floor(availableParallelism() / 2), 1), most);
  if (least > most) {
    const message = `threads(): "minThreads" must not be over "maxThreads": ${least} is over ${most}`;
    throw new BackgroundTasksError('ERR_INVALID_OPTION', message);
  }
  return {
    filename: workerFile,
    minThreads: least,
    maxThreads: most,
    idleTimeout,
    ...(resourceLimits && { resourceLimits }),
    ...(env && { env }),
    ...(argv && { argv }),
    ...(execArgv && { execArgv }),
  };
}

const areTexts: Check = (value) =>
  Array.isArray(value) && value.every((element) => typeof element === 'string') ? undefined : 'an array of strings';

/** More would not fit into any machine. */
const mostThreads = 10_000;

const isSize: Check = (value) => (typeof value === 'number' && value > 0 ? undefined : 'a number over 0');

/** With less than that V8 cannot start, and ends the whole process. */
const leastHeap = 4;

const limitChecks: Checks<ResourceLimits> = {
  maxOldGenerationSizeMb: (value) => (typeof value === 'number' && value >= leastHeap ? undefined : 'a number from 4'),
  maxYoungGenerationSizeMb: isSize,
  codeRangeSizeMb: isSize,
  stackSizeMb: isSize,
};

const areLimits: Check = (value) => {
  const expected = isAnObject(value);
  if (expected === undefined) checkOptions('resourceLimits', value as ResourceLimits, limitChecks);
  return expected;
};

const isAnObject: Check = (value) => (isObject(value) ? undefined : 'an object');

const optionChecks: Checks<ThreadOptions> = {
  minThreads: isCount,
  maxThreads: (value) =>
    isCount(value) === undefined && Number(value) >= 1 && Number(value) <= mostThreads
      ? undefined
      : `a whole number from 1 to ${mostThreads}`,
  idleTimeout: isTimeoutOrZero,
  resourceLimits: areLimits,
  env: (value) => (value === SHARE_ENV ? undefined : isAnObject(value)),
  argv: areTexts,
  execArgv: areTexts,
};
