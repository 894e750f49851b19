// The app of FastAPI's tutorial on background tasks, in Express. Its tasks write real files, after the response.

import { appendFile } from 'node:fs/promises';
import { dirname } from 'node:path';
import { setTimeout as sleep } from 'node:timers/promises';
import express, { type Express, type RequestHandler } from 'express';
import { type BackgroundTasksMiddleware, type BackgroundTasksOptions, backgroundTasks } from 'express-background-tasks';
import { board } from './board.js';
import { uploads } from './uploads.js';

export interface ExampleOptions extends BackgroundTasksOptions {
  /** How long each notification takes, in ms: stands for a mail server. Default 500. */
  pause?: number;
}

export interface Example {
  app: Express;
  /** For `close()` and `idle()`. */
  tasks: BackgroundTasksMiddleware;
}

/** Notifications go to the log file, uploads into files beside it. Without an engine there are no uploads. */
export function makeApp(logFile: string, { pause = 500, ...options }: ExampleOptions = {}): Example {
  let notifications = 0;

  const app = express();
  const tasks = backgroundTasks(options);
  app.use(tasks);

  app.get('/', (req, res) => {
    res.vary('Accept');
    if (req.accepts(['json', 'html']) === 'html') res.sendFile('page.html', { root: __dirname });
    else res.json({ notifications });
  });

  app.use('/send-notification', logQuery);
  app.post('/send-notification/:email', (req, res) => {
    res.locals.backgroundTasks.add(writeNotification, req.params.email, { message: 'some notification' });
    res.locals.backgroundTasks.add(countNotification);
    res.json({ message: 'Notification sent in the background' });
  });

  const { engine } = options;
  if (engine !== undefined) app.use(uploads(dirname(logFile), engine), board('/admin', engine, tasks));

  return { app, tasks };

  /** Fails on what is no address, which the client does not learn: it has its answer. The next task runs all the same. */
  async function writeNotification(email: string, { message }: { message: string }): Promise<void> {
    await sleep(pause);
    if (!email.includes('@')) throw new Error(`"${email}" is no e-mail address`);
    await appendFile(logFile, `notification for ${email}: ${message}\n`);
  }

  async function writeLog(line: string): Promise<void> {
    await sleep(pause);
    await appendFile(logFile, line);
  }

  /** A task need not be asynchronous. */
  function countNotification(): void {
    notifications++;
  }

  /** What FastAPI calls a dependency: a middleware that adds its own task to the list of the same response. */
  function logQuery(...[req, res, next]: Parameters<RequestHandler>): void {
    const { q } = req.query;
    if (typeof q === 'string') res.locals.backgroundTasks.add(writeLog, `found query: ${q}\n`);
    next();
  }
}
