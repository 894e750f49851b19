// list(): the tasks of this process that have not ended.

import { randomUUID } from 'node:crypto';
import { after, backgroundTasks, currentTask, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { expresses, serve } from '../fixtures/serve.js';

const uuid = expect.stringMatching(/^[0-9a-f-]{36}$/);

describe.each(expresses)('list() on Express %s', (_version, express) => {
  it('shows what runs before what waits, with its age and its request', async () => {
    const tasks = backgroundTasks();
    const app = express();
    app.use(tasks);
    const gate = deferred();
    const began = deferred();
    const waits = task('waits', () => gate.promise);
    app.post('/orders/:id', (req, res) => {
      const { backgroundTasks: list } = res.locals;
      list.add(req.params['id'] === '1' ? waits : began.resolve);
      list.add(function after() {}).cancel();
      list.add(waits);
      res.end();
    });
    app.post('/quick', (_req, res) => {
      res.locals.backgroundTasks.add(() => began.promise.then(() => gate.promise));
      res.end();
    });
    const { url } = await serve(app);
    expect(tasks.list()).toEqual([]);
    await fetch(`${url}/orders/1?token=secret`, { method: 'POST' });
    await new Promise((resolve) => setTimeout(resolve, 20));
    await fetch(`${url}/quick`, { method: 'POST' });
    while (tasks.stats.running < 2) await new Promise(setImmediate);
    const list = tasks.list();
    expect(list).toEqual([
      { id: uuid, name: 'waits', status: 'running', attempt: 1, ageMs: expect.any(Number), request: 'POST /orders/1' },
      { id: uuid, name: 'anonymous', status: 'running', attempt: 1, ageMs: expect.any(Number), request: 'POST /quick' },
      { id: uuid, name: 'waits', status: 'pending', attempt: 0, ageMs: expect.any(Number), request: 'POST /orders/1' },
    ]);
    const [first = 0, second, third] = list.map(({ ageMs }) => ageMs);
    expect(first).toBeGreaterThanOrEqual(19);
    expect(second).toBeLessThanOrEqual(first);
    expect(third).toBeLessThanOrEqual(first);
    expect(third).toBeGreaterThanOrEqual(19);
    began.resolve();
    gate.resolve();
    await tasks.idle();
    expect(tasks.list()).toEqual([]);
  });

  it('counts the attempts of a task that is retried, and has no request where the response is gone', async () => {
    const tasks = backgroundTasks({ onError: () => {} });
    const app = express();
    app.use(tasks);
    const attempts: (number | undefined)[] = [];
    const fails = task(
      'fails',
      () => {
        attempts.push(currentTask()?.attempt);
        throw new Error('no');
      },
      { retries: { limit: 1, minDelay: 50, jitter: false } },
    );
    app.get('/', (_req, res) => {
      res.locals.backgroundTasks.add(fails);
      res.end();
    });
    const { url } = await serve(app);
    await fetch(url);
    while (attempts.length === 0) await new Promise(setImmediate);
    expect(tasks.list()).toMatchObject([{ name: 'fails', status: 'running', attempt: 1, request: 'GET /' }]);
    await tasks.idle();
    expect(attempts).toEqual([1, 2]);
  });
});

it('onError gets the arguments of a task, and the default logger does not', async () => {
  const token = randomUUID();
  const logged: string[] = [];
  const reported: unknown[] = [];
  for (const tasks of [
    backgroundTasks({ logger: { error: (context) => logged.push(JSON.stringify(context)) } }),
    backgroundTasks({ onError: (_error, { args }) => void reported.push(args) }),
  ]) {
    const app = expresses[0]?.[1]();
    app?.use(tasks);
    app?.get('/', (_req, res) => {
      after((_token: string) => {
        throw new Error('no');
      }, token);
      res.end();
    });
    if (app !== undefined) await fetch((await serve(app)).url);
    await tasks.idle();
  }
  expect(reported).toEqual([[token]]);
  expect(logged).toHaveLength(1);
  expect(logged.join()).not.toContain(token);
});
