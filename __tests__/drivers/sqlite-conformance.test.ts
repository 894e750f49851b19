// The SQLite engine: the conformance suite.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { describeConformance, type FragileStore } from './conformance.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22 }, 'sqlite', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-conformance-'));
  let files = 0;

  afterAll(() => rmSync(directory, { recursive: true }));

  describeConformance('sqlite', {
    module: join(__dirname, 'fixtures/sqlite.ts'),
    createStore,
    createFragileStore: createStore,
  });

  /** Another process that does not end its transaction makes the store fail. */
  function createStore(): FragileStore {
    const path = join(directory, `${++files}.db`);
    let blocker: Database.Database | undefined;
    return {
      config: { path, lease: 1500, pollInterval: 100 },
      stop: () => {
        blocker = new Database(path);
        blocker.exec('BEGIN EXCLUSIVE');
      },
      start: () => {
        blocker?.close();
      },
      remove: () => {},
    };
  }
});
