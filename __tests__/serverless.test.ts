// Behind adapters for serverless hosts, which hand Express a request and a response without a connection: the response's
// socket is a plain object that collects what is written. The two shapes are those of serverless-http and serverless-express.

import { IncomingMessage, ServerResponse } from 'node:http';
import { PassThrough } from 'node:stream';
import type { Express, Response } from 'express';
import { type BackgroundTasksOptions, backgroundTasks } from '../lib/index';
import { expresses } from './fixtures/serve';

interface Adapter {
  requestSocket(): object;
  emitsClose: boolean;
}

const adapters: Record<string, Adapter> = {
  'serverless-http': { requestSocket: () => new PassThrough(), emitsClose: true },
  'serverless-express': { requestSocket: () => ({ readable: true, end() {}, destroy() {} }), emitsClose: false },
};

/** Gives the app one request. Returns what it has written by the time it has answered. */
async function invoke(app: Express, { requestSocket, emitsClose }: Adapter): Promise<string> {
  const req = new IncomingMessage(requestSocket() as never);
  Object.assign(req, { method: 'GET', url: '/', complete: true });
  const res = new ServerResponse(req);
  const ignore = (): void => {};
  let written = '';
  const socket = {
    _writableState: {},
    writable: true,
    on: ignore,
    removeListener: ignore,
    destroy: ignore,
    cork: ignore,
    uncork: ignore,
    write(data: string | Buffer, encoding?: unknown, callback: unknown = encoding): boolean {
      written += data.toString();
      if (typeof callback === 'function') callback();
      return true;
    },
  };
  res.assignSocket(socket as never);
  const finished = new Promise((resolve) => res.once('finish', resolve).once('close', resolve));
  app(req as never, res as never);
  await finished;
  if (emitsClose) res.emit('close');
  return written;
}

describe.each(expresses)('on Express %s', (_version, express) => {
  describe.each(Object.entries(adapters))('behind an adapter like %s', (_name, adapter) => {
    function appWith(handle: (res: Response) => void, options: BackgroundTasksOptions = {}) {
      const tasks = backgroundTasks(options);
      const app = express();
      app.use(tasks);
      app.get('/', (_req, res) => handle(res));
      return { app, tasks };
    }

    it.each(['always', 'success'] as const)("runs tasks with when: '%s'", async (when) => {
      const task = jest.fn();
      const { app, tasks } = appWith(
        (res) => {
          res.locals.backgroundTasks.add(task);
          res.send('answer');
        },
        { when },
      );
      expect(await invoke(app, adapter)).toContain('answer');
      await tasks.idle();
      expect(task).toHaveBeenCalledTimes(1);
    });

    it('runs a task that was added after the answer', async () => {
      const task = jest.fn();
      const { app, tasks } = appWith((res) => {
        res.send('answer');
        res.locals.backgroundTasks.add(task);
      });
      await invoke(app, adapter);
      await tasks.idle();
      expect(task).toHaveBeenCalledTimes(1);
    });

    if (adapter.emitsClose) {
      it('runs the tasks of an answer that is broken off', async () => {
        const outcomes: unknown[] = [];
        const { app, tasks } = appWith(
          (res) => {
            res.locals.backgroundTasks.add(() => {});
            res.destroy();
            res.emit('close');
          },
          { when: (outcome) => outcomes.push(outcome) > 0 },
        );
        await invoke(app, adapter);
        await tasks.idle();
        expect(outcomes).toEqual([{ statusCode: 200, completed: false }]);
      });
    }

    it('gives waitUntil what the function has to wait for', async () => {
      const work: Promise<void>[] = [];
      const task = jest.fn();
      const { app } = appWith(
        (res) => {
          res.locals.backgroundTasks.add(task);
          res.send('answer');
        },
        { waitUntil: (promise) => work.push(promise) },
      );
      await invoke(app, adapter);
      expect(task).toHaveBeenCalledTimes(0);
      await Promise.all(work);
      expect(task).toHaveBeenCalledTimes(1);
    });
  });
});
