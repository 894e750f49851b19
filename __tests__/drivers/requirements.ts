// Suites that need a newer Node, a server or packages from the npm registry: where that is missing they are skipped, and one
// line says so. With the environment variable REQUIRE_SERVICES=1 a missing server fails instead.

import { spawnSync } from 'node:child_process';

export interface Requirements {
  /** The lowest major version of Node. */
  node?: number;
  /** Name of the server, and the port of 127.0.0.1 on which it listens. */
  server?: readonly [name: string, port: number];
  /** A program that must be there: it is run with these arguments. */
  program?: readonly [file: string, ...args: string[]];
  /** Whether it installs packages that this repository has not: that takes its time, and INSTALL_FROM_NPM=1 asks for it. */
  npm?: boolean;
}

export function describeWith(requirements: Requirements, title: string, body: () => void): void {
  const reason = missing(requirements);
  if (reason === undefined) {
    describe(title, body);
    return;
  }
  process.stderr.write(`skipped: ${title}: ${reason}\n`);
  describe.skip(title, () => {
    it(reason, () => {});
  });
}

function missing({ node = 0, server, program, npm = false }: Requirements): string | undefined {
  if (Number.parseInt(process.versions.node, 10) < node) {
    return `it needs Node ${node}, this is ${process.versions.node}`;
  }
  if (npm && process.env['INSTALL_FROM_NPM'] !== '1') return 'it installs packages: INSTALL_FROM_NPM=1 runs it';
  const reason = missingServer(server) ?? missingProgram(program);
  const { REQUIRE_SERVICES } = process.env;
  if (reason !== undefined && REQUIRE_SERVICES === '1') throw new Error(`REQUIRE_SERVICES=1, but ${reason}`);
  return reason;
}

function missingServer(server: Requirements['server']): string | undefined {
  if (server === undefined) return undefined;
  const [name, port] = server;
  return listens(port) ? undefined : `no ${name} listens on 127.0.0.1:${port}`;
}

function missingProgram(program: Requirements['program']): string | undefined {
  if (program === undefined) return undefined;
  const [file, ...args] = program;
  const { error, status } = spawnSync(file, args, { timeout: 30_000 });
  return error === undefined && status === 0 ? undefined : `${program.join(' ')} does not run`;
}

/** Synchronously, since Jest collects its tests so. */
function listens(port: number): boolean {
  const connect = `require('net').connect(${port}, '127.0.0.1').on('connect', () => process.exit(0)).on('error', () => process.exit(1))`;
  return spawnSync(process.execPath, ['-e', connect], { timeout: 5000 }).status === 0;
}
