// Opens a connection to RabbitMQ by the package amqplib.

import type { ChannelModel, SocketOptions } from 'amqplib';
import { BackgroundTasksError } from '../../errors.js';
import { missingPackage } from './message.js';

/** Once `signal` is aborted, the socket is closed without a word to the broker. */
export async function connect(url: URL, signal: AbortSignal): Promise<ChannelModel> {
  const clientProperties = { connection_name: 'express-background-tasks' };
  const options = { timeout: 4000, noDelay: true, clientProperties, signal, ...credentialsOf(url) };
  try {
    return await loadAmqplib().connect(withHeartbeat(url), options);
  } catch (error) {
    throw isVirtualHostRefused(error) ? virtualHostRefused(error) : error;
  }
}

/** A blocked broker does not read. Only by heartbeats does it notice that a client has closed the connection. */
function withHeartbeat({ href }: URL): string {
  const url = new URL(href);
  if (!url.searchParams.has('heartbeat')) url.searchParams.set('heartbeat', '10');
  return url.href;
}

/** amqplib would decode percent-encoded UTF-8 as Latin-1. */
function credentialsOf({ username, password }: URL): Pick<SocketOptions, 'credentials'> {
  if (username === '' && password === '') return {}; // amqplib logs in as guest.
  const { plain } = loadAmqplib().credentials;
  return { credentials: plain(decodeURIComponent(username), decodeURIComponent(password)) };
}

function isVirtualHostRefused(error: unknown): error is Error {
  return error instanceof Error && error.message.startsWith('Expected ConnectionOpenOk; got <ConnectionClose');
}

/** RabbitMQ says why, but amqplib does not pass it on. */
function virtualHostRefused(cause: Error): BackgroundTasksError {
  const reason = 'there is none of this name, the user may not use it, it is down, or it takes no more connections';
  const message = `celery: RabbitMQ refuses the virtual host in "broker": ${reason}`;
  return new BackgroundTasksError('ERR_INVALID_OPTION', message, { cause });
}

export function loadAmqplib(): typeof import('amqplib') {
  try {
    return require('amqplib');
  } catch (cause) {
    throw missingPackage('amqplib', cause);
  }
}
