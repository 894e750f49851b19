// The page for the person on call: what the engine has stored, and what runs in this process. Anybody may see and change it: a
// real application asks who is there first.

import { createBullBoard } from '@bull-board/api';
import { ExpressAdapter } from '@bull-board/express';
import express, { type Router } from 'express';
import type { BackgroundTasksMiddleware, TaskEngine } from 'express-background-tasks';
import { ResponseTasksAdapter, TaskEngineAdapter } from 'express-background-tasks/bull-board';

export function board(path: string, engine: TaskEngine, tasks: BackgroundTasksMiddleware): Router {
  const serverAdapter = new ExpressAdapter();
  serverAdapter.setBasePath(path);
  createBullBoard({
    queues: [
      new TaskEngineAdapter(engine, { name: 'stored', displayName: 'Stored tasks' }),
      new ResponseTasksAdapter(tasks, { name: 'responses', displayName: 'After a response' }),
    ],
    serverAdapter,
    options: { uiConfig: { boardTitle: 'Background tasks', hideRedisDetails: true } },
  });
  return express.Router().use(path, serverAdapter.getRouter());
}
