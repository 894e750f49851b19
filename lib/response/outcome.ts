// Tells when a response is over and whether it was completed. What happens to its connection afterwards does not matter.

import { AsyncResource } from 'node:async_hooks';
import type { IncomingMessage, ServerResponse } from 'node:http';
import type { Socket } from 'node:net';
import onFinished from 'on-finished';
import type { ResponseOutcome } from '../task/when.js';

/** The outcome of a response that is over. Otherwise undefined. */
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
 * For a response that is not over. Calls back once, when the whole response was handed to its socket or its connection is gone.
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
    // on-finished takes a call of end(), or a client that has closed its side, for the end. Megabytes may still wait to be sent.
    const here = AsyncResource.bind(over); // The events may come in the context of the previous response on the connection.
    res.once('finish', here);
    res.once('close', here);
  } else {
    onFinished(res, over);
  }
}

/** For a response that is over. */
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
 * How a response is sent. `memory`: it has no connection, as with test tools and adapters for serverless hosts. `none`: it is not
 * sent. When a connection becomes a WebSocket, engine.io passes to middleware an object without status and end. Its tasks run at
 * once.
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

/** Node ends a stream that the client has cancelled, but the handler may still write to it. */
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

/** Whether the whole response was handed to its socket, once that is known. */
const handedOver = Symbol('handedOver');

interface Judged {
  [handedOver]?: boolean;
}

/** Some emit 'finish' within end(), before `writableEnded` is true. Others emit only 'close', when they are destroyed. */
function watchMemory(res: ServerResponse, over: () => void): void {
  res.prependListener('finish', judgeMemory);
  res.once('close', over);
}

function judgeMemory(this: ServerResponse & Judged): void {
  this[handedOver] = true;
}

/**
 * Over HTTP/1 a connection that was closed after the response (by server.close(), closeAllConnections(), http-shutdown) looks
 * like one that broke during the response. Only the order of events tells them apart, so this listener comes first.
 */
function watchHandover(req: IncomingMessage, res: ServerResponse, over: () => void): void {
  if (res.socket === null) whenClosedInQueue(req.socket, res, over);
  if (res.writableEnded && res.socket !== null) judgeEnd.call(res);
  else res.on('prefinish', judgeEnd);
}

/** Within end(): the operating system already has a small response, whatever happens to the connection. */
function judgeEnd(this: ServerResponse & Judged): void {
  this.off('prefinish', judgeEnd);
  if (this.socket?.writableLength === 0) this[handedOver] = isIntact(this.socket);
  else this.prependOnceListener('finish', judgeFinish); // The response is large, or encrypted.
}

function judgeFinish(this: ServerResponse & Judged): void {
  this[handedOver] = this.socket !== null && !this.socket.errored && (!this.socket.destroyed || finishMeansWhole);
}

/** Before Node 24 a response that was cut off emits 'finish', too: failed writes call back like others. */
const finishMeansWhole = Number.parseInt(process.versions.node, 10) >= 24;

function isIntact(socket: Socket): boolean {
  return !socket.destroyed && !socket.errored;
}

const queued = new WeakMap<Socket, Set<() => void>>();

/**
 * A response that waits behind another one (HTTP pipelining) gets no event when the connection closes. There is one listener per
 * socket, however many responses wait: Node warns of a leak when there are more than ten.
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
