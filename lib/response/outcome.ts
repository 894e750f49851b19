// Tells when a response is over and how it went.

import type { Socket } from 'node:net';
import type { Request, Response } from 'express';
import onFinished from 'on-finished';
import type { ResponseOutcome } from '../task/when.js';

/** The outcome of a response that is over by now, else undefined. */
export function outcomeOf({ socket }: Request, res: Response): ResponseOutcome | undefined {
  // Node detaches the socket from a response that it has sent: what becomes of the connection later says nothing about it.
  if (res.writableFinished || (res.writableEnded && isWithoutBuffer(res))) {
    return describe(res, socket, res.socket?.destroyed !== true);
  }
  return socket.destroyed ? describe(res, socket, false) : undefined;
}

/**
 * Calls back once, when the response was handed over whole to its socket or its connection is gone.
 * For a response that is not over yet.
 */
export function whenOver({ socket }: Request, res: Response, callback: (outcome: ResponseOutcome) => void): void {
  let isCalled = false;
  const over = (): void => {
    if (isCalled) return;
    isCalled = true;
    callback(describe(res, socket, isComplete(res, socket)));
  };

  if (onFinished.isFinished(res)) {
    // on-finished takes end() for the end, and a client that has closed its side: megabytes may still wait for a slow reader.
    res.once('finish', over);
    res.once('close', over);
  } else {
    onFinished(res, over);
  }
  if (res.socket === null) whenClosedInQueue(socket, res, over);
}

/** Of a response that is over. */
function isComplete(res: Response, socket: Socket): boolean {
  // Over HTTP/2 a response has no socket any more. What stands for one speaks of its stream, which is gone in any case.
  if ((res.socket as Socket | null | undefined) === undefined) return res.writableFinished;
  // Writes that failed are called back too, and until Node 22 a 'finish' follows, before the socket is destroyed: only its
  // error tells.
  return (res.writableFinished || isWithoutBuffer(res)) && !socket.destroyed && !socket.errored;
}

/**
 * Adapters for serverless hosts give a response a socket that is no stream and takes all at once. There `writableFinished`
 * never becomes true, and 'finish' may come within `end()`.
 */
function isWithoutBuffer(res: Response): boolean {
  const socket: Partial<Socket> | null | undefined = res.socket;
  return socket !== null && socket !== undefined && socket.writableLength === undefined;
}

function describe({ statusCode }: Response, { errored }: Socket, completed: boolean): ResponseOutcome {
  return completed || !errored ? { statusCode, completed } : { statusCode, completed, error: errored };
}

const queued = new WeakMap<Socket, Set<() => void>>();

/**
 * Node tells a response nothing when its connection closes while it waits behind another one (HTTP pipelining).
 * One listener a socket, however many responses wait: a listener each would trip the warning about leaks at ten.
 */
function whenClosedInQueue(socket: Socket, res: Response, over: () => void): void {
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
