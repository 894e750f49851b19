// The URLs among the options, written as Celery has them. No message shows more of one than its scheme: it may hold a password.

import { BackgroundTasksError } from '../../errors.js';

export const rabbitmqSchemes: readonly string[] = ['amqp', 'amqps'];
export const redisSchemes: readonly string[] = ['redis', 'rediss'];

export function isRabbitmq({ protocol }: URL): boolean {
  return rabbitmqSchemes.includes(protocol.slice(0, -1));
}

/** @throws BackgroundTasksError `ERR_INVALID_OPTION` for what the client would misread, or the server never take. */
export function readUrl(option: string, value: unknown, schemes: readonly string[]): URL {
  const url = typeof value === 'string' && value.includes('://') && URL.canParse(value) ? new URL(value) : undefined;
  const scheme = url?.protocol.slice(0, -1) ?? '';
  if (url === undefined || !schemes.includes(scheme)) {
    const expected = schemes.map((name) => `${name}://`).join(', ');
    const found = value === undefined ? 'there is none' : url === undefined ? 'it is none' : `it is ${scheme}://`;
    throw refused(option, `must be a URL (${expected}); ${found}`);
  }
  const fault = faultOf(url) ?? (isRabbitmq(url) ? faultForRabbitmq(url) : faultForRedis(url));
  if (fault !== undefined) throw refused(option, fault);
  return url;
}

function refused(option: string, fault: string): BackgroundTasksError {
  return new BackgroundTasksError('ERR_INVALID_OPTION', `celery(): "${option}" ${fault}`);
}

function faultOf(url: URL): string | undefined {
  if (/[,;]/.test(url.host)) return 'must name one server: of several, put a load balancer in front of them';
  try {
    decodeURIComponent(url.username + url.password + url.pathname);
    return undefined;
  } catch {
    return 'has a "%" that does not begin a percent-encoding: write %25 for it';
  }
}

/** ioredis would ask for the database NaN, leave that rejection unhandled, and go on in database 0. */
function faultForRedis({ pathname, searchParams }: URL): string | undefined {
  const databases = [pathname.slice(1), searchParams.get('db') ?? ''];
  return databases.some((database) => /\D/.test(database)) ? 'must have a number as its database' : undefined;
}

function faultForRabbitmq({ pathname, searchParams }: URL): string | undefined {
  if (Buffer.byteLength(decodeURIComponent(pathname.slice(1))) > 255) {
    return 'must have a virtual host of at most 255 bytes';
  }
  for (const [name, lowest, highest] of ranges) {
    const text = searchParams.get(name);
    if (text === null || (/^\d+$/.test(text) && Number(text) >= lowest && Number(text) <= highest)) continue;
    return `must have a whole number from ${lowest} to ${highest} as its "${name}"`;
  }
  return undefined;
}

/** What amqplib reads from the query. */
const ranges = [
  ['heartbeat', 0, 65_535],
  ['channelMax', 0, 65_535],
  ['frameMax', 4096, 2 ** 32 - 1],
] as const;
