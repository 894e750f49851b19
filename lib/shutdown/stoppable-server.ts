// A server that ends each connection behind the last answer under way on it. server.close() leaves the busy ones open.

import { type IncomingMessage, ServerResponse } from 'node:http';
import type { Http2ServerRequest, Http2ServerResponse, Http2Session } from 'node:http2';
import { Server, type Socket } from 'node:net';
import { endEarly } from '../http/open-answers.js';
import { startTimer } from './run-phases.js';

/** A server of `node:http`, `node:https` or `node:http2`. */
export interface AnyHttpServer extends Server {
  closeIdleConnections?(): void;
  closeAllConnections?(): void;
}

type AnyRequest = IncomingMessage | Http2ServerRequest;
type AnyResponse = ServerResponse | Http2ServerResponse;

export class StoppableServer {
  readonly #server: AnyHttpServer;
  /** All that are open, also those that were upgraded. Behind TLS a connection has two. */
  readonly #sockets = new Set<Socket>();
  readonly #connections = new WeakMap<Socket, Connection>();
  readonly #sessions = new Set<Http2Session>();
  /** Those that have not been sent to their ends. */
  readonly #answers = new Set<AnyResponse>();
  #isStopping = false;
  /** The answer at whose end the idle connections are looked at again. */
  #awaited: AnyResponse | undefined = undefined;

  constructor(server: AnyHttpServer) {
    this.#server = server;
    server.on('connection', this.#onSocket);
    server.on('secureConnection', this.#onSocket);
    server.on('session', this.#onSession);
    server.prependListener('request', this.#onRequest);
  }

  /** Removes all listeners. */
  release(): void {
    this.#server.off('connection', this.#onSocket);
    this.#server.off('secureConnection', this.#onSocket);
    this.#server.off('session', this.#onSession);
    this.#server.off('request', this.#onRequest);
  }

  /**
   * Stops listening, and waits until the last connection has ended. What is open after `limit` ms is cut off. Resolves with the
   * number of the answers that were not whole.
   */
  async stop(limit: number): Promise<number> {
    let unanswered = 0;
    const closed = new Promise<void>((resolve) => {
      this.#server.once('close', resolve);
    });
    this.#stop();
    const stopTimer = startTimer(limit, () => {
      unanswered = this.#answers.size;
      this.#cutOff();
    });
    await closed;
    stopTimer();
    return unanswered;
  }

  #stop(): void {
    this.#isStopping = true;
    // The close() of an HTTP server would also cut off each answer that a handler has ended and a slow client has not read.
    Server.prototype.close.call(this.#server);
    this.#guardHandlers();
    for (const socket of this.#sockets) {
      // A connection from which nothing has come, as browsers open them in advance, would stay open for a minute.
      if (socket.bytesRead === 0) socket.destroy();
      this.#connections.get(socket)?.endBehindLast();
    }
    for (const session of this.#sessions) session.close();
    for (const res of this.#answers) endEarly(res);
    this.#closeIdle();
  }

  /** From here on the handlers get only what will be answered. */
  #guardHandlers(): void {
    this.#server.off('request', this.#onRequest);
    const handlers = this.#server.listeners('request');
    this.#server.removeAllListeners('request');
    this.#server.on('request', (req: AnyRequest, res: AnyResponse) => {
      // It was sent before its client has seen the end of the connection. Unanswered and without effect, it can be sent again.
      if (this.#connections.get(req.socket)?.isEnding === true) return;
      this.#onRequest(req, res);
      for (const handler of handlers) Reflect.apply(handler, this.#server, [req, res]);
    });
  }

  /** For Node.js a connection is idle once a handler has ended its answer, so those that are being sent have to be waited for. */
  #closeIdle(): void {
    const beingSent = [...this.#answers].find(({ writableEnded }) => writableEnded);
    if (beingSent === undefined) {
      this.#server.closeIdleConnections?.();
    } else if (beingSent !== this.#awaited) {
      this.#awaited = beingSent;
      beingSent.once('close', () => this.#closeIdle());
    }
  }

  #cutOff(): void {
    for (const socket of this.#sockets) socket.destroy();
    this.#server.closeAllConnections?.(); // For connections that are older than this object.
  }

  readonly #onSocket = (socket: Socket): void => {
    this.#sockets.add(socket);
    socket.once('close', () => this.#sockets.delete(socket));
  };

  readonly #onSession = (session: Http2Session): void => {
    this.#sessions.add(session);
    session.once('close', () => this.#sessions.delete(session));
  };

  readonly #onRequest = (req: AnyRequest, res: AnyResponse): void => {
    // A session of HTTP/2 ends by itself.
    const connection = res instanceof ServerResponse ? this.#connectionOf(req.socket) : undefined;
    this.#answers.add(res);
    connection?.answers.add(res);
    if (this.#isStopping) {
      endEarly(res);
      connection?.endBehindLast();
    }
    res.once('close', () => {
      this.#answers.delete(res);
      connection?.answers.delete(res);
      if (this.#isStopping) connection?.endIfAnswered();
    });
  };

  #forget({ answers }: Connection): void {
    for (const res of answers) this.#answers.delete(res);
    answers.clear();
    if (this.#isStopping) this.#closeIdle();
  }

  #connectionOf(socket: Socket): Connection {
    const connection = this.#connections.get(socket);
    if (connection === undefined) {
      const made = new Connection(socket);
      this.#connections.set(socket, made);
      // Node.js tells an answer that waits behind another one nothing of the end of its connection.
      socket.once('close', () => this.#forget(made));
      return made;
    }
    return connection;
  }
}

/** One of HTTP/1. A client may send requests on it before it has the answers to those before them. */
class Connection {
  readonly #socket: Socket;
  /** Those that have not been sent to their ends, in their order. */
  readonly answers = new Set<AnyResponse>();
  /** Whatever comes now is not answered. */
  isEnding = false;

  constructor(socket: Socket) {
    this.#socket = socket;
  }

  /** Tells the client, unless the head is sent already. Does nothing while there is no answer under way. */
  endBehindLast(): void {
    const last = [...this.answers].at(-1);
    if (last === undefined) return;
    this.isEnding = true;
    if (!last.headersSent) last.setHeader('Connection', 'close');
  }

  endIfAnswered(): void {
    if (this.answers.size > 0) return;
    this.isEnding = true;
    this.#socket.end();
  }
}
