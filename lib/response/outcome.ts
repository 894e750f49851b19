// Tells when a response is over and what became of it. What happens to its connection afterwards does not matter.

import { AsyncResource } from 'node:async_hooks';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import onFinished from 'on-finished';
import type { ResponseOutcome } from '../task/when.js';

/** The outcome of a response that is over by now, else undefined. */
export function outcomeOf(req: IncomingMessage, res: ServerResponse): ResponseOutcome | undefined {
  switch (transportOf(req, res)) {
    case 'memory':
      return res.writableEnded || res.destroyed ? describe(req, res, res.writableEnded) : undefined;
    case 'http2':
      return isWholeOverHttp2(req, res) ? describe(req, res, true) : brokenOff(req, res);
    case 'none':
      return brokenOff(req, res);
    case 'http1':
      // Node detaches the socket from a response that it has sent.
      return res.writableFinished ? describe(req, res, res.socket?.destroyed !== true) : brokenOff(req, res);
  }
}

/**
 * Calls back once, when the response was handed over whole to its socket or its connection is gone.
 * For a response that is not over yet.
 */
export function whenOver(
  req: IncomingMessage,
  res: ServerResponse,
  callback: (outcome: ResponseOutcome) => void,
): void {
  const transport = transportOf(req, res);
  let isCalled = false;
  const over = (): void => {
    if (isCalled) return;
    isCalled = true;
    callback(describe(req, res, isComplete(transport, req, res)));
  };

  if (transport === 'memory') watchMemory(res, over);
  else if (transport === 'http1') watchHandover(req, res, over);
  if (onFinished.isFinished(res)) {
    // on-finished takes end() for the end, and a client that has closed its side: megabytes may still wait for a slow reader.
    const here = AsyncResource.bind(over); // These may come in the context of the response before it on the connection.
    res.once('finish', here);
    res.once('close', here);
  } else {
    onFinished(res, over);
  }
}

/** Of a response that is over. */
function isComplete(transport: Transport, req: IncomingMessage, res: ServerResponse & Judged): boolean {
  switch (transport) {
    case 'memory':
      return res[handedOver] ?? res.writableEnded;
    case 'http2':
      return isWholeOverHttp2(req, res);
    case 'none':
      return !req.socket.destroyed;
    case 'http1':
      return res[handedOver] ?? res.writableFinished;
  }
}

/**
 * How a response travels. `memory`: test tools and adapters for serverless hosts have no connection for it. `none`: where a
 * connection becomes a WebSocket, engine.io gives to middleware what has neither a status nor an end. Its tasks run at once.
 */
type Transport = 'http1' | 'http2' | 'memory' | 'none';

function transportOf(req: IncomingMessage, res: ServerResponse): Transport {
  if (!isStream(req.socket) || (res.socket && !isStream(res.socket))) return 'memory';
  if (req.httpVersionMajor === 2) return 'http2';
  return typeof res.writableEnded === 'boolean' ? 'http1' : 'none';
}

function isStream(socket: Partial<Socket> | null | undefined): boolean {
  return typeof socket?.writableLength === 'number';
}

/** Node ends a stream that the client has cancelled, and the handler may answer it all the same. */
function isWholeOverHttp2(req: IncomingMessage, res: ServerResponse): boolean {
  return res.writableEnded && res.writableFinished && !req.aborted;
}

function brokenOff(req: IncomingMessage, res: ServerResponse): ResponseOutcome | undefined {
  return req.socket.destroyed ? describe(req, res, false) : undefined;
}

function describe(req: IncomingMessage, { statusCode = 101 }: ServerResponse, completed: boolean): ResponseOutcome {
  const socket: Socket | undefined = req.socket;
  return completed || !socket?.errored ? { statusCode, completed } : { statusCode, completed, error: socket.errored };
}

/** Whether the response was handed over whole to its socket, once that is known. */
const handedOver = Symbol('handedOver');

interface Judged {
  [handedOver]?: boolean;
}

/** Some emit 'finish' within end(), before they say that they have ended, others only 'close' when they are destroyed. */
function watchMemory(res: ServerResponse, over: () => void): void {
  res.prependListener('finish', judgeMemory);
  res.once('close', over);
}

function judgeMemory(this: ServerResponse & Judged): void {
  this[handedOver] = true;
}

/**
 * Over HTTP/1 a connection that is closed behind the answer (server.close(), closeAllConnections(), http-shutdown) looks
 * like one that was closed within it. Only the order tells, so this listener comes before those that close it.
 */
function watchHandover(req: IncomingMessage, res: ServerResponse, over: () => void): void {
  if (res.socket === null) whenClosedInQueue(req.socket, res, over);
  if (res.writableEnded && res.socket !== null) judgeEnd.call(res);
  else res.on('prefinish', judgeEnd);
}

/** Within end(): the operating system has a small answer by now, whatever becomes of the connection. */
function judgeEnd(this: ServerResponse & Judged): void {
  this.off('prefinish', judgeEnd);
  if (this.socket?.writableLength === 0) this[handedOver] = isIntact(this.socket);
  else this.prependOnceListener('finish', judgeFinish); // It is large, or encrypted.
}

function judgeFinish(this: ServerResponse & Judged): void {
  this[handedOver] = this.socket !== null && !this.socket.errored && (!this.socket.destroyed || finishMeansWhole);
}

/** Before Node 24 a response that was cut off emits 'finish' too: writes that failed are called back like others. */
const finishMeansWhole = Number.parseInt(process.versions.node, 10) >= 24;

function isIntact(socket: Socket): boolean {
  return !socket.destroyed && !socket.errored;
}

const queued = new WeakMap<Socket, Set<() => void>>();

/**
 * Node tells a response nothing when its connection closes while it waits behind another one (HTTP pipelining).
 * One listener a socket, however many responses wait: a listener each would trip the warning about leaks at ten.
 */
function whenClosedInQueue(socket: Socket, res: ServerResponse, over: () => void): void {
  const waiting = queued.get(socket) ?? new Set();
  if (waiting.size === 0) {
    queued.set(socket, waiting);
    socket.once('close', callQueued);
  }
  waiting.add(over);
  res.once('socket', () => {
    waiting.delete(over);
    if (waiting.size === 0) socket.off('close', callQueued);
  });
}

function callQueued(this: Socket): void {
  queued.get(this)?.forEach((over) => {
    over();
  });
}
