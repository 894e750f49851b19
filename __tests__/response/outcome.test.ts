// Promises 1 and 6: tasks start after the response, whatever the response is and however it ends.

import { EventEmitter, once } from 'node:events';
import { Agent, type IncomingMessage, type RequestOptions, request } from 'node:http';
import { connect, constants, createServer as createHttp2Server, type Http2Server } from 'node:http2';
import type { AddressInfo, Socket } from 'node:net';
import { join } from 'node:path';
import { Readable } from 'node:stream';
import { pipeline } from 'node:stream/promises';
import type { Express, NextFunction, Request, Response } from 'express';
import {
  type BackgroundTasksMiddleware,
  type BackgroundTasksOptions,
  backgroundTasks,
  type ResponseOutcome,
  type RunWhen,
  type TaskHandle,
  task,
} from '../../lib/index';
import { outcomeOf, whenOver } from '../../lib/response/outcome';
import { deferred } from '../fixtures/deferred';
import { expresses, openSocket, type Served, serve } from '../fixtures/serve';
import { serveTasks } from '../fixtures/serve-tasks';

/** More than the buffers of both ends of a connection hold. */
const large = Buffer.alloc(64 * 1024 * 1024);

/** What a task finds when it starts. */
interface Start {
  url: string;
  /** The response was handed over whole, or its connection is gone. */
  isOver: boolean;
}

interface Watched {
  middleware: BackgroundTasksMiddleware;
  starts: Start[];
  /** What `when` was told, once per response. */
  outcomes: ResponseOutcome[];
  /** Adds a task that notes its start. */
  add(res: Response): TaskHandle;
}

function watch(options: BackgroundTasksOptions = {}): Watched {
  const starts: Start[] = [];
  const outcomes: ResponseOutcome[] = [];
  const when = (outcome: ResponseOutcome): boolean => outcomes.push(outcome) > 0;
  return {
    middleware: backgroundTasks({ when, ...options }),
    starts,
    outcomes,
    add: (res) => {
      const { originalUrl: url, socket } = res.req;
      return res.locals.backgroundTasks.add(() => {
        starts.push({ url, isOver: res.writableFinished || socket.destroyed });
      });
    },
  };
}

const get = (url: string, headers = ''): string => `GET ${url} HTTP/1.1\r\nHost: localhost\r\n${headers}\r\n`;

/** Reads until the connection ends. */
async function readAll(socket: Socket): Promise<string> {
  let text = '';
  for await (const chunk of socket.setEncoding('latin1')) text += chunk;
  return text;
}

/** Answers a request on another connection: by then, whatever the server had at hand is done. */
async function ping({ url }: Served): Promise<void> {
  await (await fetch(`${url}/ping`)).text();
}

/** One request, by a client that has read all of the response in the end. */
async function exchange(url: string, options: RequestOptions = {}): Promise<IncomingMessage> {
  const sent = request(url, options);
  sent.end();
  const [response] = (await once(sent, 'response')) as [IncomingMessage];
  await once(response.resume(), 'end');
  return response;
}

function neverMind(): void {}

describe('over HTTP/2', () => {
  /** Its requests and responses have what the middleware uses of Express's. */
  function createServer2(handler: (req: Request, res: Response) => void): Http2Server {
    return createHttp2Server((req, res) => handler(req as unknown as Request, res as unknown as Response));
  }

  /** The middleware alone: Express itself does not speak it, adapters for it do. */
  async function exchanged(
    answer: (res: Response) => void,
    leaveEarly: boolean,
    added: 'before' | 'after it was closed' = 'before',
  ): Promise<ResponseOutcome[]> {
    const outcomes: ResponseOutcome[] = [];
    const over = deferred();
    const when = (outcome: ResponseOutcome): boolean => {
      over.resolve();
      return outcomes.push(outcome) > 0;
    };
    const middleware = backgroundTasks({ when });
    const server = createServer2((req, res) => {
      Object.assign(res, { locals: {} });
      middleware(req, res, () => {
        if (added === 'before') res.locals.backgroundTasks.add(neverMind);
        else res.once('close', () => setImmediate(() => res.locals.backgroundTasks.add(neverMind)));
        answer(res);
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const sent = client.request();
    sent.on('error', neverMind);
    await once(sent, 'response');
    if (leaveEarly) sent.close(constants.NGHTTP2_CANCEL);
    else await once(sent.resume(), 'end');
    await over.promise;
    await middleware.idle();
    client.close();
    server.close();
    return outcomes;
  }

  it.each([10, 8_000_000])('tells of a whole response of %i bytes', async (size) => {
    const outcomes = await exchanged((res) => res.end(Buffer.alloc(size)), false);
    expect(outcomes).toEqual([{ statusCode: 200, completed: true }]);
  });

  it('tells of a client that left', async () => {
    const outcomes = await exchanged((res) => res.end(large), true);
    expect(outcomes).toMatchObject([{ statusCode: 200, completed: false }]);
  });

  it.each([
    ['of a whole response', 10, false, true],
    ['of a client that left', 64 * 1024 * 1024, true, false],
  ])('tells %s also to a task that is added after the end', async (_title, size, leaveEarly, completed) => {
    const outcomes = await exchanged((res) => res.end(Buffer.alloc(size)), leaveEarly, 'after it was closed');
    expect(outcomes).toMatchObject([{ statusCode: 200, completed }]);
  });
});

describe.each(expresses)('Express %s', (version, express) => {
  interface Answer {
    status: number;
    send(req: Request, res: Response, next: NextFunction): unknown;
    method?: string;
    headers?: Record<string, string>;
  }

  const answers: Record<string, Answer> = {
    'res.json': { status: 200, send: (_req, res) => res.json({ ok: true }) },
    'res.send of 64 MB': { status: 200, send: (_req, res) => res.send(large) },
    'res.end without a body': { status: 200, send: (_req, res) => res.end() },
    'chunks written over time': {
      status: 200,
      send: async (_req, res) => {
        for (let chunk = 0; chunk < 3; chunk++) {
          res.write('chunk');
          await new Promise(setImmediate);
        }
        res.end();
      },
    },
    'a stream, by pipe': { status: 200, send: (_req, res) => Readable.from([Buffer.alloc(1e6), 'end']).pipe(res) },
    'a stream, by pipeline': { status: 200, send: async (_req, res) => pipeline(Readable.from([large]), res) },
    'res.sendFile': { status: 200, send: (_req, res) => res.sendFile(join(__dirname, '../..', 'package.json')) },
    'res.redirect': { status: 302, send: (_req, res) => res.redirect('/elsewhere') },
    'a HEAD request': { status: 200, method: 'HEAD', send: (_req, res) => res.json({ ok: true }) },
    'a 201 to a POST': { status: 201, method: 'POST', send: (_req, res) => res.status(201).json({}) },
    'a 204': { status: 204, send: (_req, res) => res.status(204).end() },
    'a 304': {
      status: 304,
      headers: { 'If-None-Match': '"tag"' },
      send: (_req, res) => res.set('ETag', '"tag"').send('not modified'),
    },
    'a 404 of the handler': { status: 404, send: (_req, res) => res.sendStatus(404) },
    'the default 404': { status: 404, send: (_req, _res, next) => next() },
    'a 500 of the handler': { status: 500, send: (_req, res) => res.sendStatus(500) },
    'a throwing handler and an error handler': {
      status: 418,
      send: () => {
        throw Object.assign(new Error('for the error handler'), { answer: 418 });
      },
    },
    'a throwing handler without an error handler': {
      status: 500,
      send: () => {
        throw new Error('for Express');
      },
    },
    'next(error)': { status: 418, send: (_req, _res, next) => next({ answer: 418 }) },
    ...(version === '5' && {
      'a rejecting handler and an error handler': {
        status: 418,
        send: async () => {
          throw { answer: 418 };
        },
      },
    }),
    'Connection: close': { status: 200, headers: { Connection: 'close' }, send: (_req, res) => res.send('bye') },
    'Expect: 100-continue': {
      status: 200,
      method: 'PUT',
      headers: { Expect: '100-continue' },
      send: (_req, res) => res.send('go on'),
    },
  };

  const answeringApp = (watched: Watched, { send }: Answer): Express => {
    const app = express();
    app.set('env', 'test'); // Express then prints no errors.
    app.use(watched.middleware);
    app.use('/before', (req, res, next) => {
      watched.add(res);
      return send(req, res, next);
    });
    app.use('/after', (req, res, next) => {
      try {
        return send(req, res, next);
      } finally {
        watched.add(res);
      }
    });
    app.use((error: { answer?: number }, _req: Request, res: Response, next: NextFunction) => {
      if (error.answer === undefined) next(error);
      else res.sendStatus(error.answer);
    });
    return app;
  };

  describe('promises 1 and 6: after any response', () => {
    describe.each(Object.entries(answers))('%s', (_name, answer) => {
      it.each(['before', 'after'])('runs a task added %s answering', async (moment) => {
        const watched = watch();
        const { url } = await serve(answeringApp(watched, answer));
        const { method, headers } = answer;
        const { statusCode } = await exchange(`${url}/${moment}`, { method, headers });
        await watched.middleware.idle();
        expect(statusCode).toBe(answer.status);
        expect(watched.starts).toEqual([{ url: `/${moment}`, isOver: true }]);
        expect(watched.outcomes).toEqual([{ statusCode: answer.status, completed: true }]);
      });
    });

    it('runs the tasks of each response on a connection that is kept alive', async () => {
      const watched = watch();
      const app = express();
      app.use(watched.middleware);
      app.get('/:number', (_req, res) => {
        watched.add(res);
        res.json({});
        watched.add(res);
      });
      const { url, server } = await serve(app);
      let connections = 0;
      server.on('connection', () => connections++);
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      for (const path of ['/1', '/2', '/3']) {
        await exchange(url + path, { agent });
        await watched.middleware.idle();
      }
      agent.destroy();
      expect(connections).toBe(1);
      expect(watched.starts.map(({ url }) => url)).toEqual(['/1', '/1', '/2', '/2', '/3', '/3']);
      expect(watched.starts.every(({ isOver }) => isOver)).toBe(true);
      expect(watched.outcomes).toHaveLength(3);
    });

    it("runs a task that a 'finish' listener adds before Node has let go of the connection", async () => {
      const watched = watch();
      const app = express();
      app.use(watched.middleware);
      app.get('/', (_req, res) => {
        res.prependOnceListener('finish', () => watched.add(res));
        res.json({});
      });
      const { url } = await serve(app);
      const agent = new Agent({ keepAlive: true });
      await exchange(url, { agent });
      await watched.middleware.idle();
      agent.destroy();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
    });

    it('runs tasks that were first added long after the response, its connection closed', async () => {
      const watched = watch();
      const closed = deferred<Response>();
      const app = express();
      app.use(watched.middleware);
      app.get('/', (req, res) => {
        req.socket.once('close', () => closed.resolve(res));
        res.json({});
      });
      const { port } = await serve(app);
      const socket = await openSocket(port);
      socket.end(get('/'));
      await readAll(socket);
      await watched.add(await closed.promise).finished;
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
    });
  });

  describe('promise 1: waits until the whole response is handed over', () => {
    /** One response of 64 MB to a client that has read its beginning and stopped. */
    async function stall(send: (res: Response, add: () => void) => void) {
      const watched = watch();
      const handled = deferred<Response>();
      const app = express();
      app.use(watched.middleware);
      app.get('/ping', (_req, res) => {
        res.send('pong');
      });
      app.get('/', (_req, res) => {
        send(res, () => watched.add(res));
        handled.resolve(res);
      });
      const served = await serve(app);
      const socket = await openSocket(served.port);
      socket.write(get('/', 'Connection: close\r\n'));
      await once(socket, 'readable');
      await ping(served);
      return { watched, served, socket, res: await handled.promise };
    }

    const moments: [string, (res: Response, add: () => void) => void][] = [
      [
        'before res.end',
        (res, add) => {
          add();
          res.end(large);
        },
      ],
      [
        'after res.end',
        (res, add) => {
          res.end(large);
          add();
        },
      ],
      [
        'after res.write and res.end',
        (res, add) => {
          res.write(large);
          res.end();
          add();
        },
      ],
    ];

    it.each(moments)('waits for a client that reads slowly, task added %s', async (_moment, send) => {
      const { watched, socket, res } = await stall(send);
      expect(res.writableFinished).toBe(false);
      expect(watched.middleware.stats).toMatchObject({ pending: 1, succeeded: 0 });
      socket.resume();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
      expect(res.writableFinished).toBe(true);
    });

    it('waits when the first task is added while the client is still reading', async () => {
      const { watched, served, socket, res } = await stall((res) => res.end(large));
      watched.add(res);
      await ping(served);
      expect(watched.middleware.stats).toMatchObject({ pending: 1, succeeded: 0 });
      socket.resume();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
    });

    it.each(moments)('runs when the client breaks off midway, task added %s', async (_moment, send) => {
      const { watched, socket } = await stall(send);
      socket.destroy();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([
        { statusCode: 200, completed: false, error: expect.objectContaining({ code: 'ECONNRESET' }) },
      ]);
    });

    it.each(moments)('runs when the server destroys the response midway, task added %s', async (_moment, send) => {
      const { watched, res } = await stall(send);
      res.destroy();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toMatchObject([{ statusCode: 200, completed: false }]); // Node 24 adds ECANCELED.
    });

    it.each(moments)('runs when the server destroys the socket midway, task added %s', async (_moment, send) => {
      const { watched, res } = await stall(send);
      const error = new Error('enough');
      res.socket?.destroy(error);
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false, error }]);
    });

    it('treats a destroyed response with pending bytes as cut off', async () => {
      const { watched, res } = await stall((res) => res.end(large));
      res.destroy();
      await watched.add(res).finished;
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });

    it('waits for a client that has ended its side and still reads', async () => {
      const { watched, served, socket, res } = await stall((res) => res.end(large));
      const ended = once(res.req.socket, 'end');
      socket.end();
      await ended;
      watched.add(res);
      await ping(served);
      expect(watched.middleware.stats).toMatchObject({ pending: 1, succeeded: 0 });
      socket.resume();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
    });

    it('waits for the connection to close when the client has ended its side before the response was ended', async () => {
      const { watched, served, socket, res } = await stall((res) => res.write(large));
      const ended = once(res.req.socket, 'end');
      socket.end();
      await ended;
      watched.add(res);
      await ping(served);
      expect(watched.middleware.stats).toMatchObject({ pending: 1, succeeded: 0 });
      socket.resume();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });
  });

  describe('promise 6: when the client left early', () => {
    /** A handler that waits, with its client. */
    async function pending(add: (res: Response, watched: Watched) => void) {
      const watched = watch();
      const handled = deferred<Response>();
      const app = express();
      app.use(watched.middleware);
      app.get('/', (_req, res) => {
        add(res, watched);
        handled.resolve(res);
      });
      const { port } = await serve(app);
      const socket = await openSocket(port);
      socket.write(get('/'));
      const res = await handled.promise;
      return { watched, socket, res };
    }

    it('runs a task that was added before', async () => {
      const { watched, socket } = await pending((res, { add }) => add(res));
      socket.destroy();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });

    it('runs a task that is added after, the response never ended', async () => {
      const { watched, socket, res } = await pending(neverMind);
      const closed = once(res, 'close');
      socket.destroy();
      await closed;
      await watched.add(res).finished;
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });

    it('runs the tasks of a handler that answers after the client has left', async () => {
      const { watched, socket, res } = await pending((res, { add }) => add(res));
      const closed = once(res, 'close');
      socket.destroy();
      await closed;
      res.status(201).json({});
      await watched.add(res).finished;
      expect(watched.starts).toHaveLength(2);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });

    it('runs a task that is added after an answer that nobody receives', async () => {
      const { watched, socket, res } = await pending(neverMind);
      const closed = once(res, 'close');
      socket.destroy();
      await closed;
      res.status(201).json({});
      await watched.add(res).finished;
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 201, completed: false }]);
    });

    it('tells what broke the connection, also to a task added later', async () => {
      const { watched, socket } = await pending((res, { add }) => add(res));
      socket.resetAndDestroy();
      await watched.middleware.idle();
      const late = await pending(neverMind);
      const closed = once(late.res, 'close');
      late.socket.resetAndDestroy();
      await closed;
      await late.watched.add(late.res).finished;
      const error = expect.objectContaining({ code: 'ECONNRESET' });
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false, error }]);
      expect(late.watched.outcomes).toEqual([{ statusCode: 200, completed: false, error }]);
    });

    it('answers a client that has ended its side, where the server allows that', async () => {
      const watched = watch();
      const handled = deferred<Response>();
      const app = express();
      app.use(watched.middleware);
      app.get('/', (_req, res) => {
        watched.add(res);
        handled.resolve(res);
      });
      const { port, server } = await serve(app);
      Object.assign(server, { httpAllowHalfOpen: true });
      const socket = await openSocket(port);
      socket.end(get('/'));
      const res = await handled.promise;
      if (!res.req.socket.readableEnded) await once(res.req.socket, 'end');
      res.send('still there?');
      expect(await readAll(socket)).toContain('still there?');
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: true }]);
    });
  });

  describe('promise 1: pipelined requests', () => {
    /** Sends requests in one go; each is answered when the test says so. */
    async function pipelined(count: number, options?: BackgroundTasksOptions) {
      const watched = watch(options);
      const responses: Response[] = [];
      const arrivals = new EventEmitter();
      const app = express();
      app.use(watched.middleware);
      app.get('/:number', (_req, res) => {
        if (responses.push(res) === count) arrivals.emit('all');
      });
      const all = once(arrivals, 'all');
      const { port } = await serve(app);
      const socket = await openSocket(port);
      const urls = Array.from({ length: count }, (_, number) => `/${number}`);
      socket.write(urls.map((url) => get(url)).join(''));
      await all;
      return { watched, responses, socket, urls };
    }

    it('keeps the lists apart and runs each after its own response', async () => {
      const { watched, responses, socket, urls } = await pipelined(4);
      // Answered in reverse, before and after their tasks: all wait for the first, which Node sends first.
      for (const [index, res] of [...responses.entries()].reverse()) {
        if (index % 2 === 0) watched.add(res);
        res.set('Connection', index === 3 ? 'close' : 'keep-alive').send(`body ${index}`);
        if (index % 2 === 1) watched.add(res);
        watched.add(res);
        if (index > 0) expect(watched.middleware.stats.succeeded).toBe(0);
      }
      const bodies = (await readAll(socket)).match(/body \d/g);
      await watched.middleware.idle();
      expect(bodies).toEqual(['body 0', 'body 1', 'body 2', 'body 3']);
      // Which responses' tasks run first is not promised.
      const starts = watched.starts.sort((one, other) => one.url.localeCompare(other.url));
      expect(starts).toEqual(urls.flatMap((url) => Array(2).fill({ url, isOver: true })));
      expect(watched.outcomes).toEqual(Array(4).fill({ statusCode: 200, completed: true }));
    });

    it('does not run the tasks of a response that waits behind another one', async () => {
      const { watched, responses, socket } = await pipelined(2);
      const [first, second] = responses as [Response, Response];
      second.send('second');
      watched.add(second);
      const sent = once(socket, 'readable');
      first.write('the beginning of the first');
      await sent;
      expect(watched.starts).toEqual([]);
      first.end();
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/1', isOver: true }]);
    });

    it.each([
      ['added before they were answered', false],
      ['added after they were answered', true],
    ])('runs every list when the client leaves, tasks %s', async (_moment, isAnswered) => {
      const warnings: Error[] = [];
      const onWarning = jest.spyOn(process, 'emitWarning').mockImplementation((warning) => {
        warnings.push(warning as Error);
      });
      try {
        const { watched, responses, socket, urls } = await pipelined(20);
        for (const res of responses.slice(1)) {
          if (isAnswered) res.send('never sent');
          watched.add(res);
        }
        socket.destroy();
        await watched.middleware.idle();
        expect(watched.starts).toEqual(urls.slice(1).map((url) => ({ url, isOver: true })));
        expect(watched.outcomes).toEqual(Array(19).fill({ statusCode: 200, completed: false }));
        expect(warnings).toEqual([]);
      } finally {
        onWarning.mockRestore();
      }
    });

    it('runs the list of a response behind one that closes the connection', async () => {
      const { watched, responses, socket } = await pipelined(2);
      const [first, second] = responses as [Response, Response];
      watched.add(second);
      second.send('never sent');
      first.set('Connection', 'close').send('the last');
      expect(await readAll(socket)).not.toContain('never sent');
      await watched.middleware.idle();
      expect(watched.starts).toEqual([{ url: '/1', isOver: true }]);
      expect(watched.outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });

    it('runs the lists of responses whose client left after some of them were sent', async () => {
      const { watched, responses, socket, urls } = await pipelined(4);
      for (const res of responses) watched.add(res);
      const received = once(socket, 'data');
      responses[0]?.send('sent');
      responses[1]?.write('the beginning');
      await received;
      socket.destroy();
      await watched.middleware.idle();
      expect(watched.starts.map(({ url }) => url).sort()).toEqual(urls);
      expect(watched.outcomes.map(({ completed }) => completed)).toEqual([true, false, false, false]);
    });

    it('tells that a response was cut off, though Node finds out by a write and calls it finished', async () => {
      const watched = watch();
      const app = express();
      app.use(watched.middleware);
      app.get('/:number', (_req, res) => {
        watched.add(res);
        res.end(large);
      });
      const socket = await openSocket((await serve(app)).port);
      socket.once('data', () => socket.destroy());
      // With so much left to write behind the first response, Node reads no further.
      socket.write(get('/0') + get('/1') + get('/2'));
      await once(socket, 'close');
      await watched.middleware.idle();
      expect(watched.outcomes.map(({ completed }) => completed)).toEqual([false, false, false]);
    });

    it('leaves no listener on the connection once nothing waits on it', async () => {
      const listenersAfter = async (added: boolean): Promise<number> => {
        const { watched, responses } = await pipelined(3);
        const [first] = responses as [Response];
        if (added) for (const res of responses) watched.add(res);
        for (const res of responses) {
          const finished = once(res, 'finish');
          res.send('sent');
          await finished;
        }
        await watched.middleware.idle();
        return first.req.socket.listenerCount('close');
      };
      expect(await listenersAfter(true)).toBe(await listenersAfter(false));
    });
  });

  describe('promise 1: a response is over once', () => {
    it.each<[string, (res: Response) => void]>([
      ['sent', (res) => res.send('sent')],
      ['ended before it was asked', (res) => res.end(large)],
      ['destroyed', (res) => res.destroy()],
      ['destroyed after its end', (res) => res.end(large).destroy()],
    ])('when it was %s', async (_name, answer) => {
      const callback = jest.fn();
      let closed = deferred();
      const app = express();
      app.get('/before', (req, res) => {
        whenOver(req, res, callback);
        res.once('close', () => setImmediate(closed.resolve));
        answer(res);
      });
      app.get('/after', (req, res) => {
        answer(res);
        if (outcomeOf(req, res) === undefined) whenOver(req, res, callback);
        else callback();
        res.once('close', () => setImmediate(closed.resolve));
      });
      const { url } = await serve(app);
      for (const path of ['/before', '/after']) {
        await exchange(url + path).catch(neverMind);
        await closed.promise;
        expect(callback).toHaveBeenCalledTimes(1);
        callback.mockClear();
        closed = deferred();
      }
    });
  });

  describe('an idle response costs no listener', () => {
    function countListeners(emitter: EventEmitter): Record<string, number> {
      return Object.fromEntries(emitter.eventNames().map((name) => [String(name), emitter.listenerCount(name)]));
    }

    it('attaches its listeners at the first add', async () => {
      const app = express();
      const counts: Record<string, number>[][] = [];
      const count = (res: Response): void => {
        counts.push([countListeners(res), countListeners(res.req), countListeners(res.req.socket)]);
      };
      const middleware = backgroundTasks();
      app.use((_req, res, next) => {
        count(res);
        next();
      });
      app.use(middleware);
      app.get('/', (_req, res) => {
        count(res);
        res.locals.backgroundTasks.add(neverMind);
        count(res);
        res.locals.backgroundTasks.add(neverMind);
        count(res);
        res.send('sent');
      });
      const { url } = await serve(app);
      await (await fetch(url)).text();
      await middleware.idle();
      const [bare, mounted, added, addedTwice] = counts;
      expect(mounted).toEqual(bare);
      expect(added).not.toEqual(bare);
      expect(addedTwice).toEqual(added);
    });

    it.each([
      ['before', '/before'],
      ['after', '/after'],
    ])('leaves nothing attached to a connection kept alive, tasks added %s res.send', async (_moment, path) => {
      const app = express();
      const responses: Response[] = [];
      const counts: Record<string, number>[] = [];
      const middleware = backgroundTasks();
      app.use(middleware);
      app.use((req, res, next) => {
        counts.push(countListeners(req.socket));
        responses.push(res);
        next();
      });
      app.get('/without', (_req, res) => {
        res.send('sent');
      });
      app.get('/before', (_req, res) => {
        res.locals.backgroundTasks.add(neverMind);
        res.send('sent');
      });
      app.get('/after', (_req, res) => {
        res.send('sent');
        res.locals.backgroundTasks.add(neverMind);
      });
      const { url } = await serve(app);
      const agent = new Agent({ keepAlive: true, maxSockets: 1 });
      for (let number = 0; number < 51; number++) {
        await exchange(url + (number === 0 ? '/without' : path), { agent });
        await middleware.idle();
      }
      agent.destroy();
      expect(new Set(responses.map(({ req }) => req.socket.remotePort)).size).toBe(1);
      const [first, ...others] = counts;
      expect(others).toEqual(Array(50).fill(first));
      const [without, ...withTasks] = responses.map(countListeners);
      expect(withTasks).toEqual(Array(50).fill(without));
    });
  });

  describe('promise 6: when', () => {
    /** What became of a task after a response with this status, or one that broke off. */
    async function statusAfter(when: RunWhen | undefined, answer: number | 'broken off', reports: unknown[] = []) {
      const middleware = backgroundTasks({ when, onError: (error) => void reports.push(error) });
      const added = deferred<TaskHandle>();
      const app = express();
      app.use(middleware);
      app.get('/', (_req, res) => {
        added.resolve(res.locals.backgroundTasks.add(neverMind));
        if (answer === 'broken off') res.destroy();
        else res.sendStatus(answer);
      });
      const { url } = await serve(app);
      await fetch(url).then((response) => response.text(), neverMind);
      const { status } = await (await added.promise).finished;
      expect(middleware.stats).toMatchObject({ pending: 0, running: 0, [status]: 1 });
      return status;
    }

    it.each<[RunWhen | undefined, number | 'broken off', string]>([
      [undefined, 200, 'succeeded'],
      [undefined, 500, 'succeeded'],
      [undefined, 'broken off', 'succeeded'],
      ['always', 200, 'succeeded'],
      ['always', 404, 'succeeded'],
      ['always', 'broken off', 'succeeded'],
      ['success', 200, 'succeeded'],
      ['success', 204, 'succeeded'],
      ['success', 399, 'succeeded'],
      ['success', 400, 'skipped'],
      ['success', 404, 'skipped'],
      ['success', 500, 'skipped'],
      ['success', 'broken off', 'skipped'],
      [({ statusCode }) => statusCode === 500, 500, 'succeeded'],
      [({ statusCode }) => statusCode === 500, 200, 'skipped'],
      [({ completed }) => !completed, 'broken off', 'succeeded'],
    ])('%s, after %s: %s', async (when, answer, status) => {
      expect(await statusAfter(when, answer)).toBe(status);
    });

    it('is asked once per response, when that is over', async () => {
      const when = jest.fn(() => true);
      const watched = watch({ when });
      const app = express();
      app.use(watched.middleware);
      app.get('/', (_req, res) => {
        watched.add(res);
        watched.add(res);
        res.status(202).send('accepted');
        watched.add(res);
        expect(when).not.toHaveBeenCalled();
      });
      const { url } = await serve(app);
      await (await fetch(url)).text();
      await watched.middleware.idle();
      expect(when).toHaveBeenCalledTimes(1);
      expect(when).toHaveBeenCalledWith({ statusCode: 202, completed: true });
      expect(watched.starts).toHaveLength(3);
    });

    it('is asked though a task before had one of its own', async () => {
      const when = jest.fn(() => true);
      const { middleware, respond } = await serveTasks({ when });
      const handles = await respond((tasks) => [
        tasks.add(task('unwanted', () => {}, { when: () => false })),
        tasks.add(() => {}),
      ]);
      await middleware.idle();
      expect(when).toHaveBeenCalledTimes(1);
      expect(handles.map(({ status }) => status)).toEqual(['skipped', 'succeeded']);
    });

    it('fails the task that it throws for, and reports it', async () => {
      const error = new Error('cannot tell');
      const reports: unknown[] = [];
      const when = (): boolean => {
        throw error;
      };
      expect(await statusAfter(when, 200, reports)).toBe('failed');
      expect(reports).toEqual([error]);
    });

    it.each<[string, () => unknown]>([
      [
        'throws',
        () => {
          throw new Error('cannot tell');
        },
      ],
      ['returns a promise', async () => true],
    ])('is asked once per response also where it %s, and fails each of its tasks', async (_name, fn) => {
      const when = jest.fn(fn);
      const { middleware, reports, respond } = await serveTasks({ when: when as RunWhen });
      const handles = await respond((tasks) => [tasks.add(() => {}), tasks.add(() => {}), tasks.add(() => {})]);
      await middleware.idle();
      expect(when).toHaveBeenCalledTimes(1);
      expect(handles.map(({ status }) => status)).toEqual(['failed', 'failed', 'failed']);
      expect(reports).toHaveLength(3);
      await respond((tasks) => tasks.add(() => {}));
      await middleware.idle();
      expect(when).toHaveBeenCalledTimes(2);
    });

    it.each<[string, () => unknown]>([
      ['a promise', async () => true],
      ['a rejected promise', () => Promise.reject(new Error('cannot tell'))],
      // biome-ignore lint/suspicious/noThenProperty: a thenable is what is tested
      ['a thenable', () => ({ then: (resolve: (value: boolean) => void) => resolve(true) })],
    ])('fails the task that it returns %s for, and says that it cannot be asynchronous', async (_name, when) => {
      const reports: unknown[] = [];
      expect(await statusAfter(when as RunWhen, 200, reports)).toBe('failed');
      expect(reports).toEqual([
        expect.objectContaining({ code: 'ERR_INVALID_OPTION', message: expect.stringContaining('asynchronous') }),
      ]);
    });
  });
});
