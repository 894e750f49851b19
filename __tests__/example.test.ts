// The example over real HTTP, its server as a process of its own, and the two apps of FastAPI's tutorial.

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { appendFile, mkdtemp, readdir, readFile, rm } from 'node:fs/promises';
import { connect } from 'node:net';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import type { Readable } from 'node:stream';
import { setTimeout as sleep } from 'node:timers/promises';
import type { RequestHandler } from 'express';
import {
  type BackgroundTasksMiddleware,
  type BackgroundTasksOptions,
  backgroundTasks,
  type Task,
  type TaskEngine,
} from '../lib/index';
import { send } from './drivers/fixtures/send.js';
import { describeWith } from './drivers/requirements';
import { deferred } from './fixtures/deferred';
import { expresses, openSocket, serve } from './fixtures/serve';

jest.mock('../lib/drivers/sqlite/library', () => require('./drivers/fixtures/on-better-sqlite3'));

let directory: string;
let logFile: string;

beforeEach(async () => {
  directory = await mkdtemp(join(tmpdir(), 'background-tasks-test-'));
  logFile = join(directory, 'log.txt');
});

afterEach(() => rm(directory, { recursive: true }));

const post = (url: string, body?: string | Uint8Array<ArrayBuffer>): Promise<Response> =>
  fetch(url, { method: 'POST', body: body ?? null });

describe.each(expresses)('the example on Express %s', (_version, express) => {
  let url: string;
  let tasks: BackgroundTasksMiddleware;
  /** The tasks pause until this is called. */
  let goOn: () => void;
  let reports: unknown[];

  beforeEach(async () => {
    const pause = deferred();
    goOn = pause.resolve;
    reports = [];
    const options: BackgroundTasksOptions = { logger: { error: (...report) => reports.push(report) } };
    jest.doMock('express', () => express);
    jest.doMock('node:timers/promises', () => ({ setTimeout: () => pause.promise }));
    jest.resetModules();
    const { makeApp } = require('../example/app') as typeof import('../example/app.js');
    const example = makeApp(logFile, options);
    tasks = example.tasks;
    ({ url } = await serve(example.app));
  });

  afterEach(() => {
    jest.dontMock('express');
    jest.dontMock('node:timers/promises');
  });

  it('answers a notification before anything is written, and then writes it', async () => {
    const response = await post(`${url}/send-notification/ada@example.com`);
    expect(await response.json()).toEqual({ message: 'Notification sent in the background' });
    expect(await readdir(directory)).toEqual([]);

    goOn();
    await tasks.idle();
    expect(await readFile(logFile, 'utf8')).toBe('notification for ada@example.com: some notification\n');
  });

  it('runs the task of the middleware before the one of the handler', async () => {
    await post(`${url}/send-notification/ada@example.com?q=lovelace`);
    goOn();
    await tasks.idle();
    expect(await readFile(logFile, 'utf8')).toBe(
      'found query: lovelace\nnotification for ada@example.com: some notification\n',
    );
  });

  it('reports a notification to nobody, after its 200, and goes on with the next task', async () => {
    const response = await post(`${url}/send-notification/nobody`);
    expect(response.status).toBe(200);
    expect(reports).toEqual([]);

    goOn();
    await tasks.idle();
    const err = expect.objectContaining({ message: '"nobody" is no e-mail address' });
    const request = 'POST /send-notification/nobody';
    expect(reports).toEqual([
      [{ err, task: expect.anything(), request }, 'Background task "writeNotification" failed'],
    ]);
    expect(await readdir(directory)).toEqual([]);
    expect(await (await fetch(url)).json()).toEqual({ notifications: 1 });
  });

  it('has no uploads without an engine', async () => {
    expect((await post(`${url}/uploads`, 'text')).status).toBe(404);
  });

  it('counts what was done, in a synchronous task', async () => {
    await post(`${url}/send-notification/ada@example.com`);
    expect(await (await fetch(url)).json()).toEqual({ notifications: 0 });
    goOn();
    await tasks.idle();
    expect(await (await fetch(url)).json()).toEqual({ notifications: 1 });
  });
});

describeWith({ node: 22 }, 'the uploads of the example', () => {
  let engine: TaskEngine;

  /** Of the same copy of the library as the example that is loaded after it. */
  function openEngine(): void {
    jest.resetModules();
    const { createEngine } = require('./drivers/fixtures/sqlite') as typeof import('./drivers/fixtures/sqlite.js');
    engine = createEngine({ path: join(directory, 'tasks.db') });
  }

  afterEach(() => engine.close());

  async function ended(url: string): Promise<object> {
    for (;;) {
      const status = (await (await fetch(url)).json()) as { state: string };
      if (status.state === 'succeeded' || status.state === 'failed') return status;
      await sleep(20);
    }
  }

  describe.each(expresses)('on Express %s', (_version, express) => {
    let url: string;
    let analyseUpload: Task;

    beforeEach(async () => {
      jest.doMock('express', () => express);
      openEngine();
      const { makeApp } = require('../example/app') as typeof import('../example/app.js');
      ({ analyseUpload } = require('../example/uploads') as typeof import('../example/uploads.js'));
      ({ url } = await serve(makeApp(logFile, { engine }).app));
    });

    afterEach(() => {
      jest.dontMock('express');
    });

    it('are stored before the answer, and can be asked for until a worker has done them', async () => {
      const response = await post(`${url}/uploads`, 'two words\nand three more');
      expect(response.status).toBe(202);
      const status = `${url}${response.headers.get('location')}`;
      expect(await (await fetch(status)).json()).toMatchObject({ name: 'analyse upload', state: 'queued' });

      await engine.work([analyseUpload]);
      expect(await ended(status)).toMatchObject({ state: 'succeeded', result: { bytes: 24, lines: 2, words: 5 } });
    });

    it('fail after the answer where they are no text', async () => {
      const onError = jest.fn();
      await engine.work([analyseUpload], { onError });
      const response = await post(`${url}/uploads`, new Uint8Array([0xff, 0xfe]));
      expect(response.status).toBe(202);
      const error = { name: 'TypeError', message: expect.stringContaining('not valid') };
      expect(await ended(`${url}${response.headers.get('location')}`)).toMatchObject({ state: 'failed', error });
      await engine.close();
      expect(onError).toHaveBeenCalledTimes(1);
    });

    it('are refused where they are empty, without a task', async () => {
      expect((await post(`${url}/uploads`)).status).toBe(400);
      expect((await readdir(directory)).filter((name) => name.endsWith('.upload'))).toEqual([]);
    });
  });

  it('are run by a process of their own, which ends its task at SIGTERM', async () => {
    openEngine();
    const { analyseUpload } = require('../example/uploads') as typeof import('../example/uploads.js');
    const file = join(directory, 'an.upload');
    writeFileSync(file, 'one line');
    const { id } = await send(engine, { name: analyseUpload.name, args: [file] });

    const args = ['--import', 'tsx', join(__dirname, '../example/worker.ts'), join(directory, 'tasks.db')];
    const worker = spawn(process.execPath, args, { stdio: ['ignore', 'pipe', 'inherit'] });
    let output = '';
    worker.stdout.setEncoding('utf8').on('data', (chunk: string) => {
      output += chunk;
      if (chunk.includes('started')) worker.kill('SIGTERM');
    });
    const [code] = await once(worker, 'close');
    expect({ code, output }).toEqual({ code: 0, output: expect.stringMatching(/done \(attempt 1\).*has stopped/s) });
    expect(await engine.get(id)).toMatchObject({ state: 'succeeded', result: { bytes: 8, lines: 1, words: 2 } });
  }, 60_000);
});

describe('the server of the example', () => {
  let server: ChildProcessByStdio<null, Readable, Readable>;
  let output: string;
  let url: string;

  beforeEach(async () => {
    output = '';
    server = spawn(process.execPath, ['--import', 'tsx', join(__dirname, '../example/server.ts')], {
      env: { ...process.env, PORT: '0', LOG_FILE: logFile },
      stdio: ['ignore', 'pipe', 'pipe'],
    });
    for (const stream of [server.stdout, server.stderr]) {
      stream.setEncoding('utf8').on('data', (chunk: string) => {
        output += chunk;
      });
    }
    await printed('kill -TERM');
    url = output.match(/http:\/\/localhost:\d+/)?.[0] ?? '';
  }, 60_000);

  afterEach(() => {
    server.kill('SIGKILL');
  });

  async function printed(text: string): Promise<void> {
    while (!output.includes(text)) {
      if (server.exitCode !== null) throw new Error(`the server has ended: ${output}`);
      await Promise.race([once(server.stdout, 'data'), once(server, 'exit')]);
    }
  }

  async function stoppedListening(): Promise<void> {
    for (;;) {
      const attempt = connect(Number(new URL(url).port), 'localhost');
      try {
        await once(attempt, 'connect');
        attempt.destroy();
      } catch {
        return;
      }
    }
  }

  async function exited(): Promise<void> {
    const [code, signal] = await once(server, 'close');
    expect({ code, signal, output }).toEqual({ code: 0, signal: null, output });
  }

  it.each(['SIGTERM', 'SIGINT'] as const)(
    'at %s lets the tasks of answered requests end, and exits with 0',
    async (signal) => {
      const emails = ['ada', 'grace', 'joan', 'mary'].map((name) => `${name}@example.com`);
      await Promise.all(
        emails.map(async (email) => (await post(`${url}/send-notification/${email}?q=${email}`)).text()),
      );
      server.kill(signal);
      await exited();

      const lines = (await readFile(logFile, 'utf8')).trimEnd().split('\n');
      const expected = emails.flatMap((email) => [
        `found query: ${email}`,
        `notification for ${email}: some notification`,
      ]);
      expect(lines.sort()).toEqual(expected.sort());
      expect(output).toMatch(/Stopped: \d+ tasks succeeded, 0 failed, 0 were abandoned/);
    },
    60_000,
  );

  it('lets a request end that is under way, and then its tasks', async () => {
    const socket = await openSocket(Number(new URL(url).port));
    let answer = '';
    socket.setEncoding('utf8').on('data', (chunk: string) => {
      answer += chunk;
    });
    socket.write('POST /send-notification/ada@example.com HTTP/1.1\r\nHost: local');
    // Its answer says that the server has read what came before it.
    await (await fetch(url)).text();
    server.kill('SIGTERM');
    await stoppedListening();
    socket.write('host\r\n\r\n');
    await Promise.all([once(socket, 'close'), exited()]);

    expect(answer).toMatch(/^HTTP\/1.1 200 /);
    expect(await readFile(logFile, 'utf8')).toBe('notification for ada@example.com: some notification\n');
    expect(output).toContain('Stopped: 2 tasks succeeded');
  }, 60_000);
});

describe.each(expresses)("FastAPI's tutorial on Express %s", (_version, express) => {
  it('adds a background task in a path operation', async () => {
    function writeNotification(email: string, { message = '' } = {}): void {
      writeFileSync(logFile, `notification for ${email}: ${message}`);
    }

    const tasks = backgroundTasks();
    const app = express();
    app.use(tasks);
    app.post('/send-notification/:email', (req, res) => {
      res.locals.backgroundTasks.add(writeNotification, req.params.email, { message: 'some notification' });
      res.json({ message: 'Notification sent in the background' });
    });
    const { url } = await serve(app);

    const response = await post(`${url}/send-notification/foo@example.com`);
    expect(await response.json()).toEqual({ message: 'Notification sent in the background' });
    await tasks.idle();
    expect(await readFile(logFile, 'utf8')).toBe('notification for foo@example.com: some notification');
  });

  describe('with dependency injection', () => {
    async function writeLog(message: string): Promise<void> {
      await appendFile(logFile, message);
    }

    const getQuery: RequestHandler = (req, res, next) => {
      const { q } = req.query;
      if (typeof q === 'string') res.locals.backgroundTasks.add(writeLog, `found query: ${q}\n`);
      next();
    };

    const tasks = backgroundTasks();
    const app = express();
    app.use(tasks);
    app.use('/send-notification', getQuery);
    app.post('/send-notification/:email', (req, res) => {
      res.locals.backgroundTasks.add(writeLog, `message to ${req.params.email}\n`);
      res.json({ message: 'Message sent' });
    });

    it.each([
      ['', 'message to foo@example.com\n'],
      ['?q=some-query', 'found query: some-query\nmessage to foo@example.com\n'],
    ])('merges the tasks of all levels, for "%s"', async (query, log) => {
      const { url } = await serve(app);
      const response = await post(`${url}/send-notification/foo@example.com${query}`);
      expect(await response.json()).toEqual({ message: 'Message sent' });
      await tasks.idle();
      expect(await readFile(logFile, 'utf8')).toBe(log);
    });
  });
});
