// The app of FastAPI's tutorial on background tasks, in Express. Its tasks write real files, after the response.

import { randomUUID } from 'node:crypto';
import { appendFile, writeFile } from 'node:fs/promises';
import { dirname, join } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express, type RequestHandler } from 'express';
import { type BackgroundTasksMiddleware, type BackgroundTasksOptions, backgroundTasks } from '../lib/index.js';

export interface ExampleOptions extends BackgroundTasksOptions {
  /** How long each asynchronous task takes, in ms: stands for a mail server, or for a big file. Default 500. */
  pause?: number;
}

export interface Example {
  app: Express;
  /** For `close()` and `idle()`. */
  tasks: BackgroundTasksMiddleware;
}

/** Notifications go to the log file, the results of uploads into files beside it. Their directory must exist. */
export function makeApp(logFile: string, { pause = 500, ...options }: ExampleOptions = {}): Example {
  const directory = dirname(logFile);
  const counts = { notifications: 0, uploads: 0 };

  const app = express();
  const tasks = backgroundTasks(options);
  app.use(tasks);

  app.get('/', (_req, res) => {
    res.json(counts);
  });

  app.use('/send-notification', logQuery);
  app.post('/send-notification/:email', (req, res) => {
    res.locals.backgroundTasks.add(writeNotification, req.params.email, { message: 'some notification' });
    res.locals.backgroundTasks.add(count, 'notifications');
    res.json({ message: 'Notification sent in the background' });
  });

  app.post('/uploads', express.raw({ type: () => true, limit: '1mb' }), (req, res) => {
    const content: unknown = req.body;
    if (!Buffer.isBuffer(content) || content.length === 0) {
      res.status(400).json({ message: 'Nothing was uploaded' });
      return;
    }
    const id = randomUUID();
    res.locals.backgroundTasks.add(analyseUpload, content, join(directory, `${id}.json`));
    res.locals.backgroundTasks.add(count, 'uploads');
    res.status(202).location(`/uploads/${id}`).json({ id });
  });

  app.get('/uploads/:id', (req, res) => {
    res.sendFile(`${req.params.id}.json`, { root: directory }, (error) => {
      if (error !== undefined && !res.headersSent) res.status(404).json({ message: 'No result, or not yet' });
    });
  });

  return { app, tasks };

  async function writeNotification(email: string, { message }: { message: string }): Promise<void> {
    await sleep(pause);
    await appendFile(logFile, `notification for ${email}: ${message}\n`);
  }

  async function writeLog(line: string): Promise<void> {
    await sleep(pause);
    await appendFile(logFile, line);
  }

  /** Fails on what is no text, which the client does not learn: it has its answer. */
  async function analyseUpload(content: Buffer, resultFile: string): Promise<void> {
    await sleep(pause);
    const text = new TextDecoder('utf-8', { fatal: true }).decode(content);
    const lines = text.split('\n').length;
    const words = text.split(/\s+/).filter((word) => word !== '').length;
    await writeFile(resultFile, JSON.stringify({ bytes: content.length, lines, words }));
  }

  /** A task need not be asynchronous. */
  function count(what: keyof typeof counts): void {
    counts[what]++;
  }

  /** What FastAPI calls a dependency: a middleware that adds its own task to the list of the same response. */
  function logQuery(...[req, res, next]: Parameters<RequestHandler>): void {
    const { q } = req.query;
    if (typeof q === 'string') res.locals.backgroundTasks.add(writeLog, `found query: ${q}\n`);
    next();
  }
}
