// The middleware outside of Express: on a bare server of node:http, and in socket.io's engine, which gives it a stand-in for a
// response where a connection becomes a WebSocket.

import { EventEmitter, once } from 'node:events';
import { createServer, type IncomingMessage, type RequestListener, type Server, type ServerResponse } from 'node:http';
import { type AddressInfo, connect, type Socket } from 'node:net';
import { setTimeout as sleep } from 'node:timers/promises';
import { after, type BackgroundTasks, backgroundTasks, type ResponseOutcome, type RunWhen } from '../lib/index';

const servers: Server[] = [];

async function listen(listener?: RequestListener): Promise<{ server: Server; port: number; url: string }> {
  const server = createServer(listener).listen(0, '127.0.0.1');
  servers.push(server);
  await once(server, 'listening');
  const { port } = server.address() as AddressInfo;
  return { server, port, url: `http://127.0.0.1:${port}` };
}

afterEach(() => {
  for (const server of servers.splice(0)) {
    server.closeAllConnections();
    server.close();
  }
});

/** Without Express nobody has declared `locals`. */
function listOf(res: object): BackgroundTasks {
  return (res as { locals: { backgroundTasks: BackgroundTasks } }).locals.backgroundTasks;
}

describe('on a bare server of node:http', () => {
  it('runs tasks after the response, added by after() and by the list of the response', async () => {
    const tasks = backgroundTasks();
    const order: string[] = [];
    async function handle(res: ServerResponse): Promise<void> {
      await sleep(1);
      after(() => order.push('by after()'));
      res.end('answer', () => order.push('the answer'));
    }
    const { url } = await listen((req, res) => {
      tasks(req, res, () => {
        listOf(res).add(() => order.push('by the list'));
        void handle(res);
      });
    });
    expect(await (await fetch(url)).text()).toBe('answer');
    await tasks.idle();
    expect(order).toEqual(['the answer', 'by the list', 'by after()']);
  });

  it.each(['/a/path', '/a/path?with=secrets'])('names the request of a task that failed: %s', async (path) => {
    const lines: string[] = [];
    const contexts: object[] = [];
    const tasks = backgroundTasks({
      logger: {
        error: (context, message) => {
          contexts.push(context);
          lines.push(message);
        },
      },
    });
    const { url } = await listen((req, res) => {
      tasks(req, res, () => {
        after(function failing() {
          throw new Error('boom');
        });
        res.end();
      });
    });
    await (await fetch(url + path, { method: 'PUT' })).text();
    await tasks.idle();
    expect(lines).toEqual(['Background task "failing" failed']);
    expect(contexts).toMatchObject([{ request: 'PUT /a/path' }]);
  });

  it('tells onError of the request and the response', async () => {
    const seen: unknown[] = [];
    const tasks = backgroundTasks({
      onError: (_error, { req, res }) => {
        seen.push(req, res);
      },
    });
    const given: unknown[] = [];
    const { url } = await listen((req, res) => {
      given.push(req, res);
      tasks(req, res, () => {
        after(() => Promise.reject(new Error('boom')));
        res.end();
      });
    });
    await (await fetch(url)).text();
    await tasks.idle();
    expect(seen).toHaveLength(2);
    expect(seen.every((value, index) => value === given[index])).toBe(true);
  });
});

describe('where a connection becomes a WebSocket', () => {
  /** What engine.io gives to middleware: it knows of no status, no end, and in older versions of no event. */
  class StandIn extends EventEmitter {
    constructor(readonly socket: Socket) {
      super();
    }
    writeHead(): void {}
    end(): void {
      this.emit('finish');
      this.socket.destroy();
    }
  }
  class OlderStandIn {
    constructor(readonly socket: Socket) {}
    writeHead(): void {}
    end(): void {
      this.socket.destroy();
    }
  }

  describe.each([
    ['', StandIn],
    [' of an older version', OlderStandIn],
  ])('by a stand-in%s', (_version, Response) => {
    /** Asks for a WebSocket. A task is added before the connection is one, and another from an event of it. */
    async function upgraded(when: RunWhen, isRefused: boolean) {
      const ran: string[] = [];
      const tasks = backgroundTasks({ when });
      const { server, port } = await listen();
      server.on('upgrade', (req: IncomingMessage, socket: Socket) => {
        const res = new Response(socket);
        tasks(req, res as unknown as ServerResponse, () => {
          after(() => ran.push('from the middleware'));
          if (isRefused) {
            res.end();
            return;
          }
          socket.write('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
          socket.on('data', () => {
            listOf(res).add(() => ran.push('from an event')); // No event of the socket is in the context of the request.
            socket.write('taken');
          });
        });
      });
      const client = connect(port, '127.0.0.1');
      client.write('GET / HTTP/1.1\r\nHost: localhost\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n');
      if (isRefused) {
        await once(client.resume(), 'close');
      } else {
        await once(client, 'data');
        client.write('an event');
        await once(client, 'data');
      }
      await tasks.idle();
      const wasOpen = !client.destroyed;
      client.destroy();
      return { ran, wasOpen };
    }

    it.each<RunWhen>(['always', 'success'])("runs tasks while it is open, with when: '%s'", async (when) => {
      const { ran, wasOpen } = await upgraded(when, false);
      expect(ran).toEqual(['from the middleware', 'from an event']);
      expect(wasOpen).toBe(true);
    });

    it.each([
      [false, true],
      [true, false],
    ])('tells of the handshake, refused: %p', async (isRefused, completed) => {
      const outcomes: ResponseOutcome[] = [];
      await upgraded((outcome) => outcomes.push(outcome) > 0, isRefused);
      expect(outcomes).toEqual([{ statusCode: 101, completed }]);
    });
  });
});
