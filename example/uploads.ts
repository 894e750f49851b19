// The part of the example that must not be lost: an upload is answered with 202 once its task is stored, and analysed by a
// worker, in whatever process one runs. The page follows it, and can stop it.

import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Router } from 'express';
import { cancelTask, currentTask, type TaskEngine, task, taskStatus } from 'express-background-tasks';

const steps = 20;

/**
 * Its argument is JSON, so it gets the name of the file, not the content. It may run twice, if a worker dies: it only reads,
 * so twice is as good as once. It fails on what is no text, which `GET /tasks/:id` tells, and the worker reports.
 */
export const analyseUpload = task(
  'analyse upload',
  async (file: string) => {
    const content = await readFile(file);
    const lines = new TextDecoder('utf-8', { fatal: true }).decode(content).split('\n');
    let words = 0;
    for (let step = 0; step < steps; step++) {
      const part = lines.slice((lines.length * step) / steps, (lines.length * (step + 1)) / steps);
      for (const line of part) words += line.split(/\s+/).filter((word) => word !== '').length;
      currentTask()?.progress({ percent: (100 * (step + 1)) / steps });
      // Stands for slow work: half a second for a small file, ten seconds for one of 5 MB.
      await sleep(Math.min(500, 25 + content.length / 10_000), undefined, { signal: currentTask()?.signal });
    }
    return { bytes: content.length, lines: lines.length, words };
  },
  { timeout: 60_000 },
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
