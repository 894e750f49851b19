// The part of the example that must not be lost: an upload is answered with 202 once its task is stored, and analysed by a
// worker, in whatever process one runs. The page follows it, and can stop it.

import { randomUUID } from 'node:crypto';
import { writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import express, { type Router } from 'express';
import { cancelTask, type TaskEngine, taskStatus } from 'express-background-tasks';
import { threads } from 'express-background-tasks/threads';

/** The threads load TypeScript as this program does. They start with the first task, and keep no process alive. */
const pool = threads({ execArgv: ['--import', 'tsx'] });

/** It runs in a thread of whatever process has a worker. */
export const analyseUpload = pool.task<typeof import('./analysis.js').analyse>(
  'analyse upload',
  join(__dirname, 'analysis.js'),
  { export: 'analyse', timeout: 60_000 },
);

/** Uploads are kept in the directory. Anybody may see and stop them: a real application asks who is there first. */
export function uploads(directory: string, engine: TaskEngine): Router {
  const router = express.Router();

  router.post('/uploads', express.raw({ type: () => true, limit: '20mb' }), async (req, res) => {
    const content: unknown = req.body;
    if (!Buffer.isBuffer(content) || content.length === 0) {
      res.status(400).json({ message: 'Nothing was uploaded' });
      return;
    }
    const file = join(directory, `${randomUUID()}.upload`);
    await writeFile(file, content, { flush: true });
    const { id } = await res.locals.backgroundTasks.enqueue(analyseUpload, file);
    res.status(202).location(`/tasks/${id}`).json({ id });
  });

  router.get('/uploads', async (_req, res) => {
    const records = await engine.list({ name: analyseUpload.name, limit: 20 });
    res.json(records.map(({ id, state, enqueuedAt }) => ({ id, state, enqueuedAt })));
  });

  router.get('/tasks/:id', taskStatus(engine, { result: true }));
  router.delete('/tasks/:id', cancelTask(engine));

  return router;
}
