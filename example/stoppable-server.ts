// A server that ends each connection behind the answer under way when it stops. server.close() leaves the busy ones open.

import { once } from 'node:events';
import { createServer, type RequestListener, type Server } from 'node:http';

export function createStoppableServer(app: RequestListener): Server {
  const server = createServer((req, res) => {
    // Sent before the client has seen the end of the connection. Unanswered and without effect, it can be sent again.
    if (req.socket.writableEnded) return;

    // Asked when the head is written, not when the request arrives: the server may stop in between.
    const writeHead = res.writeHead.bind(res) as (...head: unknown[]) => typeof res;
    res.writeHead = (...head: unknown[]) => {
      if (!server.listening) res.setHeader('Connection', 'close');
      return writeHead(...head);
    };
    res.once('close', () => {
      if (!server.listening) req.socket.end();
    });
    app(req, res);
  });
  return server;
}

/** Stops listening and lets the requests end. After `limit` ms those that have not are cut off. */
export async function stopServer(server: Server, limit: number): Promise<void> {
  server.close();
  server.closeIdleConnections();
  const timer = setTimeout(() => server.closeAllConnections(), limit);
  await once(server, 'close');
  clearTimeout(timer);
}
