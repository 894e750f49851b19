// Starlette's own tests of its background tasks, told in Express.

import { backgroundTasks } from '../lib/index';
import { expresses, serve } from './fixtures/serve';

/** Sends one request, and returns the body once every task has ended. */
async function get(url: string, { idle }: { idle(): Promise<void> }): Promise<string> {
  const body = await (await fetch(url)).text();
  await idle();
  return body;
}

describe.each(expresses)('Starlette (Express %s)', (_version, express) => {
  it('async task', async () => {
    let isComplete = false;
    const middleware = backgroundTasks();
    const app = express().use(middleware);
    app.get('/', (_req, res) => {
      res.locals.backgroundTasks.add(async () => {
        isComplete = true;
      });
      res.send('task initiated');
    });
    const { url } = await serve(app);
    expect(await get(url, middleware)).toBe('task initiated');
    expect(isComplete).toBe(true);
  });

  it('sync task', async () => {
    let isComplete = false;
    const middleware = backgroundTasks();
    const app = express().use(middleware);
    app.get('/', (_req, res) => {
      res.locals.backgroundTasks.add(() => {
        isComplete = true;
      });
      res.send('task initiated');
    });
    const { url } = await serve(app);
    expect(await get(url, middleware)).toBe('task initiated');
    expect(isComplete).toBe(true);
  });

  it('multiple tasks', async () => {
    let counter = 0;
    const increment = ({ amount }: { amount: number }): void => {
      counter += amount;
    };
    const middleware = backgroundTasks();
    const app = express().use(middleware);
    app.get('/', (_req, res) => {
      const tasks = res.locals.backgroundTasks;
      tasks.add(increment, { amount: 1 });
      tasks.add(increment, { amount: 2 });
      tasks.add(increment, { amount: 3 });
      res.send('tasks initiated');
    });
    const { url } = await serve(app);
    expect(await get(url, middleware)).toBe('tasks initiated');
    expect(counter).toBe(1 + 2 + 3);
  });

  it('multiple tasks, failure avoids next execution: with stopOnError', async () => {
    const runTwo = async (stopOnError: boolean): Promise<number> => {
      let counter = 0;
      const increment = (): void => {
        counter++;
        if (counter === 1) throw new Error('task failed');
      };
      const errors: unknown[] = [];
      const middleware = backgroundTasks({ stopOnError, onError: (error) => void errors.push(error) });
      const app = express().use(middleware);
      app.get('/', (_req, res) => {
        res.locals.backgroundTasks.add(increment);
        res.locals.backgroundTasks.add(increment);
        res.send('tasks initiated');
      });
      const { url } = await serve(app);
      expect(await get(url, middleware)).toBe('tasks initiated');
      expect(errors).toEqual([new Error('task failed')]);
      return counter;
    };
    expect(await runTwo(true)).toBe(1);
    expect(await runTwo(false)).toBe(2);
  });
});
