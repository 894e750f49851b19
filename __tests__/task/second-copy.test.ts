// A task keeps its name and options where another copy of this package is given it: an application may load two versions, or
// one version twice.

import { createEngine, MessageRunner } from '../../lib/engine/index';
import type * as Library from '../../lib/index';
import { type BackgroundTasks, type TaskMessage, task } from '../../lib/index';
import { hostileProxy } from '../fixtures/hostile';
import { serveTasks } from '../fixtures/serve-tasks';

let secondCopy: typeof Library;

beforeAll(() => {
  jest.isolateModules(() => {
    secondCopy = require('../../lib/index');
  });
});

const key = Symbol.for('express-background-tasks.task');

/** A function that says of itself what a task of another copy says. */
function posing(definition: (self: object) => unknown): () => void {
  const pose = (): void => {};
  return Object.defineProperty(pose, key, { value: definition(pose) });
}

it('is another copy', () => {
  expect(secondCopy.task).not.toBe(task);
  expect(secondCopy.BackgroundTasksError).not.toBe(require('../../lib/index').BackgroundTasksError);
});

describe('add()', () => {
  it('takes the name, the time limit and the retries', async () => {
    const { middleware, respond, reports } = await serveTasks();
    const attempts: unknown[] = [];
    const failing = secondCopy.task(
      'of the second copy',
      async (argument: string) => {
        attempts.push(argument);
        if (attempts.length === 1) throw new Error('once more');
        await new Promise(() => {});
      },
      { retries: { limit: 1, minDelay: 1 }, timeout: 20 },
    );
    const handle = await respond((tasks) => tasks.add(failing, 'argument'));
    expect(handle.name).toBe('of the second copy');
    await middleware.idle();
    expect(attempts).toEqual(['argument', 'argument']);
    expect(reports).toMatchObject([
      { error: { code: 'ERR_TASK_TIMEOUT' }, task: { name: 'of the second copy', attempt: 2 } },
    ]);
  });

  it('takes "when", and what with() has changed', async () => {
    const { middleware, respond } = await serveTasks();
    const unwanted = secondCopy.task('unwanted', () => {}).with({ when: () => false });
    const { finished } = await respond((tasks) => tasks.add(unwanted));
    await expect(finished).resolves.toEqual({ status: 'skipped' });
    await middleware.idle();
  });

  it('refuses what is for enqueue()', async () => {
    const { respond } = await serveTasks();
    const { task } = secondCopy;
    await expect(respond((tasks) => tasks.add(task('delayed', () => {}, { delay: 1 })))).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringContaining('task "delayed" has "delay"'),
    });
    await expect(respond((tasks) => tasks.add(task('remote') as never))).rejects.toMatchObject({
      code: 'ERR_INVALID_TASK',
      message: expect.stringContaining('the handler of task "remote" is in another program'),
    });
  });

  it('refuses a task with an option that only the other copy knows, and says so', async () => {
    const { respond } = await serveTasks();
    const newer = posing((self) => ({ task: self, name: 'newer', options: { teleport: true } }));
    await expect(respond((tasks) => tasks.add(newer))).rejects.toMatchObject({
      code: 'ERR_INVALID_OPTION',
      message: expect.stringMatching(
        /^task "newer" of another copy of express-background-tasks: unknown option "teleport"/,
      ),
    });
  });
});

describe('enqueue()', () => {
  it.each([true, false])('takes the name and the options, the task local: %p', async (isLocal) => {
    const messages: Omit<TaskMessage, 'id' | 'json'>[] = [];
    const engine = createEngine({
      name: 'fake',
      insert: async ({ id, json: _json, ...message }) => {
        messages.push(message);
        return id;
      },
      close: () => {},
    });
    const options = { key: 'once', priority: 3 };
    const { respond } = await serveTasks({ engine, timeout: 5000 });
    const { task } = secondCopy;
    const given = isLocal ? task('send', (_to: string) => {}, options) : task<[string]>('send', options);
    await respond((tasks: BackgroundTasks) => tasks.enqueue(given, 'ada@example.com'));
    expect(messages).toEqual([{ name: 'send', args: ['ada@example.com'], timeout: 5000, ...options }]);
  });
});

describe('work()', () => {
  it('takes the name and the options', async () => {
    const forever = secondCopy.task('forever', () => new Promise(() => {}), { timeout: 20 });
    const runner = new MessageRunner([forever]);
    expect(runner.names).toEqual(['forever']);
    const outcome = await runner.run({ id: 'id-1', name: 'forever', args: [], attempt: 1 });
    expect(outcome).toMatchObject({ state: 'failed', error: { code: 'ERR_TASK_TIMEOUT' } });
  });
});

describe('anything but a task is a function like any other', () => {
  const own = task('a task', () => {}, { when: () => false });

  it.each<[string, () => unknown]>([
    ['whose definition is missing', () => posing(() => undefined)],
    ['whose definition is no object', () => posing(() => 'a task')],
    ['whose definition cannot be looked at', () => posing(() => hostileProxy({}))],
    [
      'whose definition throws when it is read',
      () =>
        posing((self) => ({
          task: self,
          get name() {
            throw new Error();
          },
        })),
    ],
    ['whose definition speaks of another one', () => posing(() => ({ task: own, name: 'a task', options: {} }))],
    ['whose definition has no name', () => posing((self) => ({ task: self, options: {} }))],
    ['whose definition has no options', () => posing((self) => ({ task: self, name: 'a task' }))],
    ['that inherits from a task', () => Object.setPrototypeOf(() => {}, own)],
    ['that is a Proxy of a task', () => new Proxy(own, {})],
    [
      'that is a Proxy which throws when it is looked at',
      () => {
        const refuse = (): never => {
          throw new Error('hands off');
        };
        return new Proxy(() => {}, { get: refuse });
      },
    ],
  ])('one %s', async (_name, make) => {
    const { middleware, respond } = await serveTasks();
    const { finished } = await respond((tasks) => tasks.add(make() as () => void));
    await expect(finished).resolves.toEqual({ status: 'succeeded', value: undefined });
    await middleware.idle();
    expect(() => new MessageRunner([make() as typeof own])).toThrow('must be made by task(name, handler)');
  });
});

it('leaves nothing to be seen on a task', () => {
  const made = task('a task', () => {});
  expect(Object.keys(made)).toEqual(['with']);
  expect({ ...made }).toEqual({ with: expect.any(Function) });
});
