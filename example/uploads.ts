// The part of the example that must not be lost: an upload is answered with 202 once its task is stored, and analysed by a
// worker, in whatever process one runs.

import { randomUUID } from 'node:crypto';
import { readFile, writeFile } from 'node:fs/promises';
import { join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Router } from 'express';
import { currentTask, type TaskEngine, task, taskStatus } from 'express-background-tasks';

/**
 * Its argument is JSON, so it gets the name of the file, not the content. It may run twice, if a worker dies: it only reads,
 * so twice is as good as once. It fails on what is no text, which `GET /tasks/:id` tells, and the worker reports.
 */
export const analyseUpload = task(
  'analyse upload',
  async (file: string) => {
    await sleep(500, undefined, { signal: currentTask()?.signal }); // Stands for a big file.
    const content = await readFile(file);
    const text = new TextDecoder('utf-8', { fatal: true }).decode(content);
    const lines = text.split('\n').length;
    const words = text.split(/\s+/).filter((word) => word !== '').length;
    return { bytes: content.length, lines, words };
  },
  { timeout: 60_000 },
);

/** Uploads are kept in the directory. */
export function uploads(directory: string, engine: TaskEngine): Router {
  const router = express.Router();

  router.post('/uploads', express.raw({ type: () => true, limit: '1mb' }), async (req, res) => {
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

  router.get('/tasks/:id', taskStatus(engine, { result: true }));

  return router;
}
