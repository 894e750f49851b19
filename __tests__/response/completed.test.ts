// Promise 6: `completed` says what became of the response, not of the connection afterwards.

import { EventEmitter, once } from 'node:events';
import type { IncomingMessage, RequestListener, Server, ServerResponse } from 'node:http';
import { connect, constants, createServer as createHttp2Server } from 'node:http2';
import { createServer as createHttpsServer, request as httpsRequest } from 'node:https';
import type { AddressInfo } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Express, Request, Response } from 'express';
import express5 from 'express';
import { backgroundTasks, type ResponseOutcome } from '../../lib/index';
import { deferred } from '../fixtures/deferred';
import { expresses, openSocket, serve } from '../fixtures/serve';

const whole = { statusCode: 200, completed: true };

/** More than the buffers of both ends of a connection hold. */
const large = Buffer.alloc(32 * 1024 * 1024);

type Handler = (req: Request, res: Response, add: () => void) => void | Promise<void>;

/** An app with one route, whose outcomes are what `when` was told. */
function appWith(handle: Handler, express = express5) {
  const outcomes: ResponseOutcome[] = [];
  const tasks = backgroundTasks({ when: (outcome) => outcomes.push(outcome) > 0 });
  const app = express();
  app.use(tasks);
  app.get('/', (req, res) => {
    void handle(req, res, () => void res.locals.backgroundTasks.add(neverMind));
  });
  return { app, tasks, outcomes };
}

function neverMind(): void {}

describe('over HTTP/1', () => {
  /** Who closes a connection as soon as a response on it is finished; returns what tells it to. */
  const closers: Record<string, (server: Server) => () => void> = {
    'http-shutdown': (server) => {
      const add = require('http-shutdown') as (server: Server) => { shutdown(): void };
      const { shutdown } = add(server);
      return shutdown;
    },
    'http-graceful-shutdown': (server) => {
      const add = require('http-graceful-shutdown') as (server: Server, options: object) => () => Promise<void>;
      const shutdown = add(server, { signals: '', forceExit: false });
      return () => void shutdown();
    },
    "a 'finish' listener with closeAllConnections()": (server) => {
      server.on('request', (_req, res) => res.on('finish', () => server.closeAllConnections()));
      return () => server.close();
    },
    "a 'finish' listener that destroys the socket": (server) => {
      server.on('request', ({ socket }, res) => res.on('finish', () => socket.destroy()));
      return () => server.close();
    },
  };

  describe.each(Object.entries(closers))('with %s, a whole answer is completed', (_name, addCloser) => {
    it.each([
      ['small', 'before', Buffer.from('whole')],
      ['small', 'after', Buffer.from('whole')],
      ['large', 'before', large],
      ['large', 'after', large],
    ])('when it is %s and the task is added %s it', async (_size, moment, body) => {
      const waiting = deferred();
      const goOn = deferred();
      const { app, tasks, outcomes } = appWith(async (_req, res, add) => {
        waiting.resolve();
        await goOn.promise;
        if (moment === 'before') add();
        res.end(body);
        if (moment === 'after') add();
      });
      const { url, server } = await serve(app);
      const close = addCloser(server);
      const answer = fetch(url);
      await waiting.promise;
      close();
      goOn.resolve();
      expect((await (await answer).arrayBuffer()).byteLength).toBe(body.length);
      await tasks.idle();
      expect(outcomes).toEqual([whole]);
    });
  });

  const endings: [string, (server: Server, req: IncomingMessage, res: ServerResponse) => void][] = [
    ['server.close()', (server) => server.close()],
    ['server.closeAllConnections()', (server) => server.closeAllConnections()],
    ['socket.destroy()', (_server, req) => req.socket.destroy()],
    ['res.destroy()', (_server, _req, res) => res.destroy()],
  ];

  it.each(endings)('a small answer is completed with %s right behind it', async (_name, end) => {
    const { app, tasks, outcomes } = appWith((req, res, add) => {
      add();
      res.send('whole');
      end(server, req, res);
    });
    const { url, server } = await serve(app);
    expect(await (await fetch(url)).text()).toBe('whole');
    await tasks.idle();
    expect(outcomes).toEqual([whole]);
  });

  it.each(endings.slice(1))('a large answer is cut off by %s right behind it', async (_name, end) => {
    const { app, tasks, outcomes } = appWith((req, res, add) => {
      add();
      res.end(large);
      end(server, req, res);
    });
    const { url, server } = await serve(app);
    await expect(fetch(url).then((response) => response.arrayBuffer())).rejects.toThrow();
    await tasks.idle();
    expect(outcomes).toMatchObject([{ statusCode: 200, completed: false }]);
  });

  it('an answer into a destroyed socket is not completed', async () => {
    const { app, tasks, outcomes } = appWith((req, res, add) => {
      add();
      req.socket.destroy();
      res.send('into the void');
    });
    const { url } = await serve(app);
    await expect(fetch(url)).rejects.toThrow();
    await tasks.idle();
    expect(outcomes).toEqual([{ statusCode: 200, completed: false }]);
  });

  it('each of several pipelined answers is completed when the last one closes the connection', async () => {
    const { app, tasks, outcomes } = appWith(async (req, res, add) => {
      add();
      if (req.get('Last') !== undefined) res.on('finish', () => req.socket.destroy());
      else await sleep(20); // The others are answered, and wait for this one.
      res.send('whole');
    });
    const socket = await openSocket((await serve(app)).port);
    const get = 'GET / HTTP/1.1\r\nHost: localhost\r\n';
    socket.write(`${get}\r\n${get}\r\n${get}Last: true\r\n\r\n`);
    await once(socket.resume(), 'close');
    await tasks.idle();
    expect(outcomes).toEqual([whole, whole, whole]);
  });

  /** A shared key needs no certificate. */
  const key = Buffer.from('a key that both sides know');
  const cipher = { ciphers: 'PSK', maxVersion: 'TLSv1.2' as const };

  it.each([
    ['small', Buffer.from('whole')],
    ['large', large],
  ])('a %s encrypted answer is completed if the socket is destroyed afterwards', async (_size, body) => {
    const { app, tasks, outcomes } = appWith(async (req, res, add) => {
      res.on('finish', () => req.socket.destroy());
      await sleep(0);
      add();
      res.end(body);
    });
    const server = createHttpsServer({ ...cipher, pskCallback: () => key }, app as RequestListener);
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const { port } = server.address() as AddressInfo;
    const identity = { pskCallback: () => ({ psk: key, identity: 'test' }), checkServerIdentity: () => undefined };
    const sent = httpsRequest({ port, host: '127.0.0.1', ...cipher, ...identity, agent: false }).end();
    const [response] = (await once(sent, 'response')) as [IncomingMessage];
    let received = 0;
    for await (const chunk of response) received += (chunk as Buffer).length;
    await tasks.idle();
    server.close();
    expect(received).toBe(body.length);
    expect(outcomes).toEqual([whole]);
  });
});

describe('over HTTP/2', () => {
  /** One request to the middleware alone: Express itself does not speak HTTP/2, adapters for it do. */
  async function cancelled(handle: Handler, moment: 'before' | 'within'): Promise<ResponseOutcome[]> {
    const outcomes: ResponseOutcome[] = [];
    const over = deferred();
    const arrived = deferred();
    const middleware = backgroundTasks({ when: (outcome) => outcomes.push(outcome) > 0 });
    const server = createHttp2Server((req2, res2) => {
      const [req, res] = [req2 as unknown as Request, res2 as unknown as Response];
      middleware(req, res, () => {
        const add = (): void => {
          void res.locals.backgroundTasks.add(neverMind).finished.then(() => over.resolve());
        };
        void handle(req, res, add);
        arrived.resolve();
      });
    });
    server.listen(0, '127.0.0.1');
    await once(server, 'listening');
    const client = connect(`http://127.0.0.1:${(server.address() as AddressInfo).port}`);
    const sent = client.request();
    sent.on('error', neverMind);
    await (moment === 'before' ? arrived.promise : once(sent, 'readable'));
    sent.close(constants.NGHTTP2_CANCEL);
    await over.promise;
    client.close();
    server.close();
    return outcomes;
  }

  it.each<[string, 'before' | 'within', Handler]>([
    ['before the answer', 'before', (_req, _res, add) => add()],
    [
      'before the answer, which comes too late',
      'before',
      (req, res, add) => {
        add();
        req.once('close', () => res.end());
      },
    ],
    [
      'instead of the answer, which is given when that is known',
      'before',
      (req, res, add) => {
        add();
        req.once('aborted', () => res.end());
      },
    ],
    [
      'within the answer',
      'within',
      (_req, res, add) => {
        add();
        res.write('the beginning');
      },
    ],
    [
      'within the answer, which is ended',
      'within',
      (_req, res, add) => {
        add();
        res.end(large);
      },
    ],
    [
      'before the answer, the task added later',
      'before',
      (req, _res, add) => {
        req.once('close', () => setImmediate(add));
      },
    ],
    [
      'within the answer, the task added later',
      'within',
      (_req, res, add) => {
        res.end(large);
        res.once('close', () => setImmediate(add));
      },
    ],
  ])('a response whose stream is cancelled %s is not completed', async (_name, moment, handle) => {
    expect(await cancelled(handle, moment)).toMatchObject([{ statusCode: 200, completed: false }]);
  });
});

describe('in memory', () => {
  describe.each(expresses)('by light-my-request, Express %s', (_version, express) => {
    interface Injected {
      statusCode: number;
      payload: string;
    }
    const inject = require('light-my-request') as (app: Express, options: object | string) => Promise<Injected>;

    it.each(['before', 'after'])('an answer is completed, the task added %s it', async (moment) => {
      const { app, tasks, outcomes } = appWith((_req, res, add) => {
        if (moment === 'before') add();
        res.status(201).send('whole');
        if (moment === 'after') add();
      }, express);
      expect(await inject(app, '/')).toMatchObject({ statusCode: 201, payload: 'whole' });
      await tasks.idle();
      expect(outcomes).toEqual([{ statusCode: 201, completed: true }]);
    });

    it('an answer in several parts is completed', async () => {
      const { app, tasks, outcomes } = appWith(async (_req, res, add) => {
        add();
        res.write('in ');
        await sleep(1);
        res.end('parts');
      }, express);
      expect(await inject(app, '/')).toMatchObject({ payload: 'in parts' });
      await tasks.idle();
      expect(outcomes).toEqual([whole]);
    });

    it.each(['before', 'after'])('a destroyed response is not, the task added %s', async (moment) => {
      const { app, tasks, outcomes } = appWith((_req, res, add) => {
        if (moment === 'before') add();
        res.write('the beginning');
        res.destroy();
        if (moment === 'after') add();
      }, express);
      await expect(inject(app, '/')).rejects.toThrow('destroyed');
      await tasks.idle();
      expect(outcomes).toEqual([{ statusCode: 200, completed: false }]);
    });
  });

  describe('by node-mocks-http', () => {
    interface Mocks {
      createRequest(options?: object): Request;
      createResponse(options?: object): Response;
    }
    const { createRequest, createResponse } = require('node-mocks-http') as Mocks;

    function handled(options: object, handle: (res: Response, add: () => void) => void, ofRequest: object = {}) {
      const outcomes: ResponseOutcome[] = [];
      const tasks = backgroundTasks({ when: (outcome) => outcomes.push(outcome) > 0 });
      const [req, res] = [Object.assign(createRequest(), ofRequest), createResponse(options)];
      tasks(req, res, () => handle(res, () => void res.locals.backgroundTasks.add(neverMind)));
      return { tasks, outcomes };
    }

    it('an answer is completed, where the response has been given an emitter', async () => {
      const { tasks, outcomes } = handled({ eventEmitter: EventEmitter }, (res, add) => {
        add();
        res.status(201).json({});
      });
      await tasks.idle();
      expect(outcomes).toEqual([{ statusCode: 201, completed: true }]);
    });

    it.each([{}, { socket: undefined }])(
      'an answer that is broken off is not, where the request has %p',
      async (own) => {
        const leave = (res: Response, add: () => void): void => {
          add();
          res.emit('close');
        };
        const { tasks, outcomes } = handled({ eventEmitter: EventEmitter }, leave, own);
        await tasks.idle();
        expect(outcomes).toEqual([{ statusCode: 200, completed: false }]);
      },
    );

    it('an answer is completed, where the task is added after it', async () => {
      const { tasks, outcomes } = handled({}, (res, add) => {
        res.status(201).json({});
        add();
      });
      await tasks.idle();
      expect(outcomes).toEqual([{ statusCode: 201, completed: true }]);
    });
  });
});
