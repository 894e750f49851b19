// How a server stops: what becomes of each connection and of the answers on it, over real sockets.

import { once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, request as sendRequest } from 'node:http';
import {
  type ClientHttp2Session,
  connect as connectHttp2,
  createServer as createHttp2Server,
  createSecureServer,
} from 'node:http2';
import { createServer as createHttpsServer, get as getSecurely } from 'node:https';
import type { AddressInfo, Socket } from 'node:net';
import { text } from 'node:stream/consumers';
import { connect as connectTls } from 'node:tls';
import express, { type Response } from 'express';
import { task, taskStatus } from '../../lib/index.js';
import { type AnyHttpServer, StoppableServer } from '../../lib/shutdown/stoppable-server.js';
import { memory } from '../../lib/testing/index.js';
import { type Deferred, deferred } from '../fixtures/deferred.js';
import { openSocket } from '../fixtures/serve.js';
import { clientOptions, serverOptions } from './fixtures/tls.js';

/** Longer than any test: where it counts, something hangs. */
const long = 60_000;

const servers: AnyHttpServer[] = [];

async function listen(server: AnyHttpServer): Promise<number> {
  server.listen(0, '127.0.0.1');
  await once(server, 'listening');
  servers.push(server);
  return (server.address() as AddressInfo).port;
}

const sockets: Socket[] = [];

async function open(port: number): Promise<Socket> {
  const socket = await openSocket(port);
  sockets.push(socket);
  return socket;
}

afterEach(() => {
  for (const socket of sockets.splice(0)) socket.destroy();
  for (const server of servers.splice(0)) server.close();
});

/** A server that can be stopped, and what its handler has got. */
async function serve(handle: RequestListener) {
  const urls: string[] = [];
  const server = createServer((req, res) => {
    urls.push(String(req.url));
    handle(req, res);
  });
  const stoppable = new StoppableServer(server);
  const port = await listen(server);
  return { server, stoppable, port, urls };
}

/** A handler whose answers wait until they are let go, and a promise for each request. */
function waiting(): { handle: RequestListener; came: Deferred<void>; goOn: Deferred<void> } {
  const came = deferred();
  const goOn = deferred();
  return {
    came,
    goOn,
    handle(_req, res) {
      came.resolve();
      void goOn.promise.then(() => res.end('answered'));
    },
  };
}

const ask = (path: string): string => `GET ${path} HTTP/1.1\r\nHost: localhost\r\n\r\n`;

async function readUntil(socket: Socket, wanted: string): Promise<string> {
  let output = '';
  while (!output.includes(wanted)) {
    const [chunk] = (await once(socket, 'data')) as [Buffer];
    output += chunk;
  }
  return output;
}

/** Resolves with what came until the end of the connection. */
function readAll(socket: Socket): Promise<string> {
  let output = '';
  socket.on('data', (chunk) => {
    output += chunk;
  });
  return new Promise((resolve) => {
    socket.once('close', () => resolve(output));
  });
}

describe('stop()', () => {
  it('ends idle connections at once, and those from which nothing has come', async () => {
    const { stoppable, port } = await serve((_req, res) => res.end('answered'));
    const idle = await open(port);
    const fresh = await open(port);
    idle.write(ask('/'));
    await readUntil(idle, 'answered');
    expect(await stoppable.stop(long)).toBe(0);
    await Promise.all([idle, fresh].map((socket) => socket.destroyed || once(socket, 'close')));
  });

  it('lets an answer under way end, whose head tells the client that the connection ends', async () => {
    const { handle, came, goOn } = waiting();
    const { stoppable, port } = await serve(handle);
    const socket = await open(port);
    const answer = readAll(socket);
    socket.write(ask('/'));
    await came.promise;
    const stopped = stoppable.stop(long);
    goOn.resolve();
    expect(await answer).toMatch(/connection: close\r\n.*answered/is);
    expect(await stopped).toBe(0);
  });

  it('ends a connection behind an answer whose head was sent before', async () => {
    const goOn = deferred();
    const { stoppable, port } = await serve((_req, res) => {
      res.write('begun');
      void goOn.promise.then(() => res.end('ended'));
    });
    const socket = await open(port);
    socket.write(ask('/'));
    expect(await readUntil(socket, 'begun')).toMatch(/connection: keep-alive/i);
    const answer = readAll(socket);
    const stopped = stoppable.stop(long);
    goOn.resolve();
    expect(await answer).toContain('ended');
    expect(await stopped).toBe(0);
  });

  it('answers requests that were sent one behind the other, and tells it with the last one', async () => {
    const { handle, goOn } = waiting();
    const { stoppable, port, urls, server } = await serve(handle);
    const second = new Promise<void>((resolve) => {
      server.on('request', ({ url }) => url === '/2' && resolve());
    });
    const socket = await open(port);
    const answers = readAll(socket);
    socket.write(ask('/1') + ask('/2'));
    await second;
    const stopped = stoppable.stop(long);
    goOn.resolve();
    const [, first, last] = (await answers).split('HTTP/1.1 200 OK');
    expect(first).not.toMatch(/connection: close/i);
    expect(last).toMatch(/connection: close/i);
    expect(urls).toEqual(['/1', '/2']);
    expect(await stopped).toBe(0);
  });

  it('does not hand over a request that comes behind the last answer', async () => {
    const { handle, came, goOn } = waiting();
    const { stoppable, port, urls, server } = await serve(handle);
    const socket = await open(port);
    const answer = readAll(socket);
    socket.write(ask('/'));
    await came.promise;
    const stopped = stoppable.stop(long);
    const late = once(server, 'request');
    socket.write(ask('/late'));
    await late;
    goOn.resolve();
    expect((await answer).match(/HTTP\/1.1 200/g)).toHaveLength(1);
    expect(urls).toEqual(['/']);
    expect(await stopped).toBe(0);
  });

  it('answers a request that had begun to come', async () => {
    const { stoppable, port, urls } = await serve((_req, res) => res.end('answered'));
    const socket = await open(port);
    socket.write(ask('/before'));
    await readUntil(socket, 'answered');
    const answer = readAll(socket);
    socket.write('GET /in-parts HTTP/1.1\r\nHo');
    const other = await open(port);
    other.write(ask('/'));
    await readUntil(other, 'answered'); // By then the server has read what came before.
    const stopped = stoppable.stop(long);
    socket.write('st: localhost\r\n\r\n');
    expect(await answer).toMatch(/connection: close\r\n.*answered/is);
    expect(urls).toContain('/in-parts');
    expect(await stopped).toBe(0);
  });

  it('does not cut off an answer that a slow client is still reading, and ends idle connections behind it', async () => {
    const body = Buffer.alloc(32 * 1024 * 1024, 'x');
    const { stoppable, port, server } = await serve((req, res) => {
      if (req.url === '/large') res.end(body);
      else res.end('answered');
    });
    const idle = await open(port);
    idle.write(ask('/'));
    await readUntil(idle, 'answered');
    const ended = once(server, 'request').then(([, res]) => res.writableEnded as boolean);
    const request = sendRequest({ port, path: '/large' });
    request.end();
    const [response] = (await once(request, 'response')) as [IncomingMessage];
    expect(await ended).toBe(true);

    const stopped = stoppable.stop(long);
    expect(await text(response)).toHaveLength(body.length);
    expect(await stopped).toBe(0);
  });

  it('cuts off at its limit what has not ended, and counts the answers that were not whole', async () => {
    const { stoppable, port, urls } = await serve(() => {});
    const socket = await open(port);
    const answer = readAll(socket);
    socket.write(ask('/never'));
    while (urls.length === 0) await new Promise(setImmediate);
    expect(await stoppable.stop(50)).toBe(1);
    expect(await answer).toBe('');
  });

  it('cuts off at its limit connections that were upgraded, which wait for no answer', async () => {
    const { stoppable, port, server } = await serve(() => {});
    server.on('upgrade', (_req, socket: Socket) => socket.write('HTTP/1.1 101 Switching Protocols\r\n\r\n'));
    const socket = await open(port);
    socket.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
    await readUntil(socket, '101');
    const closed = readAll(socket);
    expect(await stoppable.stop(50)).toBe(0);
    await closed;
  });

  it('cuts off at its limit connections that are older than itself', async () => {
    const came = deferred();
    const server = createServer(() => came.resolve());
    const port = await listen(server);
    const socket = await open(port);
    const closed = readAll(socket);
    socket.write(ask('/'));
    await came.promise;
    await new StoppableServer(server).stop(50);
    await closed;
  });

  it('resolves for a server that does not listen', async () => {
    expect(await new StoppableServer(createServer()).stop(long)).toBe(0);
  });

  it('waits without a limit where that is Infinity', async () => {
    const { stoppable } = await serve(() => {});
    expect(await stoppable.stop(Number.POSITIVE_INFINITY)).toBe(0);
  });
});

describe('answers that are held open', () => {
  const engine = memory();
  const later = task('later', () => {}, { delay: 3_600_000 });

  async function serveStatus() {
    const { id } = await engine.enqueue(later);
    const held: Response[] = [];
    const app = express();
    const before = deferred();
    app.get('/late/:id', (_req, res, next) => {
      held.push(res);
      void before.promise.then(() => next());
    });
    app.get(['/:id', '/late/:id'], taskStatus(engine));
    const served = await serve(app);
    return { ...served, id, before, held };
  }

  it('end as soon as they are whole: event streams, and those that wait for a task', async () => {
    const { stoppable, port, id } = await serveStatus();
    const url = `http://127.0.0.1:${port}/${id}`;
    const stream = await fetch(url, { headers: { Accept: 'text/event-stream' } });
    const waits = fetch(url, { headers: { Prefer: 'wait=30' } });
    const watching = jest.spyOn(engine, 'watch');
    while (watching.mock.calls.length === 0) await new Promise(setImmediate);
    const stopped = stoppable.stop(long);
    expect(await stream.text()).toContain('"state":"queued"');
    expect(await (await waits).json()).toMatchObject({ state: 'queued' });
    expect(await stopped).toBe(0);
  });

  it('end also where they would be opened after the stop', async () => {
    const { stoppable, port, id, before, held } = await serveStatus();
    const url = `http://127.0.0.1:${port}/late/${id}`;
    const stream = fetch(url, { headers: { Accept: 'text/event-stream' } });
    while (held.length === 0) await new Promise(setImmediate);
    const stopped = stoppable.stop(long);
    before.resolve();
    expect(await (await stream).text()).toBe('');
    expect(await stopped).toBe(0);
  });

  it('end also where they are asked for while the server stops', async () => {
    const { stoppable, port, id } = await serveStatus();
    const socket = await open(port);
    const answer = readAll(socket);
    socket.write(`GET /${id} HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n`);
    await (await fetch(`http://127.0.0.1:${port}/${id}`)).text(); // By then the server has read what came before.
    const stopped = stoppable.stop(long);
    socket.write('\r\n');
    expect(await answer).toMatch(/^HTTP\/1.1 200/);
    expect(await stopped).toBe(0);
  });
});

describe('behind TLS', () => {
  it('stops a server of node:https in the same way', async () => {
    const { handle, came, goOn } = waiting();
    const server = createHttpsServer(serverOptions, handle);
    const stoppable = new StoppableServer(server);
    const port = await listen(server);
    const fresh = connectTls({ port, host: '127.0.0.1', ...clientOptions });
    sockets.push(fresh);
    await Promise.all([once(fresh, 'secureConnect'), once(server, 'secureConnection')]);
    const request = getSecurely({ port, host: '127.0.0.1', ...clientOptions });
    const answered = once(request, 'response') as Promise<[IncomingMessage]>;
    await came.promise;
    const stopped = stoppable.stop(long);
    goOn.resolve();
    const [response] = await answered;
    expect(response.headers.connection).toBe('close');
    expect(await text(response)).toBe('answered');
    expect(await stopped).toBe(0);
  });
});

describe('over HTTP/2', () => {
  const clients: ClientHttp2Session[] = [];

  afterEach(() => {
    for (const client of clients.splice(0)) client.destroy();
  });

  async function stopWhileItAnswers(server: AnyHttpServer, url: (port: number) => string): Promise<void> {
    const came = deferred();
    const goOn = deferred();
    server.on('request', (_req, res: Response) => {
      came.resolve();
      void goOn.promise.then(() => res.end('answered'));
    });
    const stoppable = new StoppableServer(server);
    const client = connectHttp2(url(await listen(server)), clientOptions);
    clients.push(client);
    const answer = text(client.request({ ':path': '/' }));
    await came.promise;
    const stopped = stoppable.stop(long);
    goOn.resolve();
    expect(await answer).toBe('answered');
    expect(await stopped).toBe(0);
  }

  it('ends a session behind its last answer', () =>
    stopWhileItAnswers(createHttp2Server(), (port) => `http://127.0.0.1:${port}`));

  it('ends a session behind its last answer, on a server that also speaks HTTP/1', () =>
    stopWhileItAnswers(
      createSecureServer({ ...serverOptions, allowHTTP1: true }),
      (port) => `https://127.0.0.1:${port}`,
    ));

  it('ends a connection of HTTP/1 on such a server behind its last answer', async () => {
    const { handle, came, goOn } = waiting();
    const server = createSecureServer({ ...serverOptions, allowHTTP1: true });
    server.on('request', handle);
    const stoppable = new StoppableServer(server);
    const port = await listen(server);
    const request = getSecurely({ port, host: '127.0.0.1', ...clientOptions });
    const answered = once(request, 'response') as Promise<[IncomingMessage]>;
    await came.promise;
    const stopped = stoppable.stop(long);
    goOn.resolve();
    const [response] = await answered;
    expect(response.headers.connection).toBe('close');
    expect(await text(response)).toBe('answered');
    expect(await stopped).toBe(0);
  });
});

it('nothing is left of requests that wait on a connection which is gone', async () => {
  const { handle, came } = waiting();
  const { server, stoppable, port, urls } = await serve(handle);
  const connected = once(server, 'connection') as Promise<[Socket]>;
  const socket = await open(port);
  const gone = once((await connected)[0], 'close');
  socket.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
  await came.promise;
  while (urls.length < 2) await new Promise(setImmediate);
  socket.destroy();
  await gone;
  expect(await stoppable.stop(long)).toBe(0);
});

it('nothing is waited for of a connection that goes while the server stops', async () => {
  const { handle, came } = waiting();
  const slow: RequestListener = (req, res) => {
    if (req.url === '/large') res.end(Buffer.alloc(50_000_000));
    else handle(req, res);
  };
  const { stoppable, port, urls } = await serve(slow);
  const [large, pipelined] = [await open(port), await open(port)];
  large.write('GET /large HTTP/1.1\r\nHost: a\r\n\r\n'); // It is not read, and so not sent to its end.
  pipelined.write('GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n');
  await came.promise;
  while (urls.length < 3) await new Promise(setImmediate);
  const stopped = stoppable.stop(long);
  pipelined.destroy();
  await new Promise((resolve) => setTimeout(resolve, 50));
  large.destroy();
  expect(await stopped).toBe(0);
});

it('release() removes its listeners', () => {
  const server = createServer(() => {});
  const events = () => ['connection', 'secureConnection', 'session', 'request'].map((name) => server.listeners(name));
  const before = events();
  new StoppableServer(server).release();
  expect(events()).toEqual(before);
});
