// The URLs among the options. Messages show only their schemes, since the rest may contain a password.

import { BackgroundTasksError } from '../../errors.js';

export const rabbitmqSchemes: readonly string[] = ['amqp', 'amqps'];
export const redisSchemes: readonly string[] = ['redis', 'rediss'];

export function isRabbitmq({ protocol }: URL): boolean {
  return rabbitmqSchemes.includes(protocol.slice(0, -1));
}

/** @throws BackgroundTasksError `ERR_INVALID_OPTION` for a URL that the client would misread or no server would accept. */
export function readUrl(option: string, value: unknown, schemes: readonly string[]): URL {
  const url = typeof value === 'string' && value.includes('://') && URL.canParse(value) ? new URL(value) : undefined;
  const scheme = url?.protocol.slice(0, -1) ?? '';
  if (url === undefined || !schemes.includes(scheme)) {
    const expected = schemes.map((name) => `${name}://`).join(', ');
    const found = value === undefined ? 'there is none' : url === undefined ? 'this is not one' : `it is ${scheme}://`;
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
  if (/[,;]/.test(url.host)) return 'must name one server: put a load balancer in front of several';
  try {
    decodeURIComponent(url.username + url.password + url.pathname);
    return undefined;
  } catch {
    return 'has a "%" that begins no percent-encoding: write %25';
  }
}

/** For other databases, ioredis would select NaN, leave the rejection unhandled, and continue in database 0. */
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

/** The numbers that amqplib reads from the query. */
const ranges = [
  ['heartbeat', 0, 65_535],
  ['channelMax', 0, 65_535],
  ['frameMax', 4096, 2 ** 32 - 1],
] as const;
