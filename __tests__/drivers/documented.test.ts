// The driver under "Writing an engine" in docs/engines.md, as a reader copies it, passes the conformance suite.

import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join, relative } from 'node:path';
import { describeConformance, type FragileStore } from './conformance.js';
import { describeWith } from './requirements.js';

const lib = join(__dirname, '../../lib');

/** Of node:sqlite, which is newer than the types of Node.js that are installed. */
interface Database {
  exec(sql: string): void;
  close(): void;
}

describeWith({ node: 24 }, 'the driver of the documentation', () => {
  const directory = mkdtempSync(join(tmpdir(), 'documented-driver-'));
  const driver = join(directory, 'small.ts');
  let stores = 0;

  const engines = readFileSync(join(__dirname, '../../docs/engines.md'), 'utf8');
  const [, code = ''] = /```ts\n([^`]*class SmallDriver .*?)^```$/ms.exec(engines) ?? [];
  const entry = `./${relative(directory, join(lib, 'engine/index.js'))}`;
  writeFileSync(
    driver,
    `${code.replace("'express-background-tasks/engine'", `'${entry}'`).replace(/^const engine = .*/m, '')}
    export { open as createEngine };
    const open = ({ path }: { path: string }) => createEngine(new SmallDriver(path, 3_000));`,
  );

  afterAll(() => rmSync(directory, { recursive: true }));

  /** By the driver's own library: within a process, locks of another one would not hold it up. */
  const { DatabaseSync }: { DatabaseSync: new (path: string) => Database } = require('node:sqlite');

  function createStore(): FragileStore {
    const path = join(directory, `${++stores}.db`);
    let lock: Database | undefined;
    return {
      config: { path },
      stop: () => {
        lock = new DatabaseSync(path);
        lock.exec('BEGIN EXCLUSIVE');
      },
      start: () => {
        lock?.close();
      },
      remove: () => {},
    };
  }

  describeConformance('the driver of the documentation', {
    module: driver,
    lacks: [
      ...(['retries', 'delay', 'priority', 'key', 'enqueueMany', 'list', 'stats', 'cancel', 'retry'] as const),
      ...(['promote', 'remove', 'schedule', 'progress', 'ready'] as const),
    ],
    createStore,
    createFragileStore: createStore,
  });
});
