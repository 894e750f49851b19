// Promise 17: faked timers, immediates and clocks neither stop nor hurry the tasks, nor let them hold the event loop.

import { spawnSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import express from 'express';
import type { TaskHandle } from '../lib/index';
import * as library from '../lib/index';
import { describeWith } from './drivers/requirements';
import type { UnderFakeTimers } from './fixtures/fake-timers';
import { serve } from './fixtures/serve';

const program = join(__dirname, 'fixtures/fake-timers.ts');

function runProgram(...args: string[]): UnderFakeTimers {
  const options = { encoding: 'utf8', timeout: 25_000 } as const;
  const { stdout, stderr } = spawnSync(
    process.execPath,
    ['--require', join(__dirname, 'fixtures/typescript.cjs'), program, ...args],
    options,
  );
  if (stdout === '') throw new Error(`the tasks came to a stop: ${stderr}`);
  return JSON.parse(stdout);
}

function expectAsUsual({ faked, restored, durable, abandoned }: UnderFakeTimers): void {
  const statuses = ['succeeded', 'succeeded', 'failed', 'succeeded'];
  expect({ faked, restored, abandoned }).toEqual({ faked: statuses, restored: statuses, abandoned: 1 });
  expect(durable.ran).toBe(1000);
}

const fakes: [fakes: string, when: 'before' | 'after'][] = [
  ['sinon', 'after'],
  ['node:test', 'after'],
  ['a frozen clock', 'after'],
  ['a frozen clock', 'before'],
];

describe.each(fakes)('%s, installed %s the library was loaded', (name, when) => {
  it('leaves the tasks and a worker as they are', () => {
    const result = runProgram(name, when);
    expectAsUsual(result);
    if (when === 'before') expect(result.durable.mostInTurn).toBeLessThanOrEqual(100);
  });
});

describeWith({ node: 22 }, 'SQLite under fake timers', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-fake-timers-'));

  afterAll(() => rmSync(directory, { recursive: true }));

  it.each(fakes)('of %s, installed %s the library was loaded', (name, when) => {
    expectAsUsual(runProgram(name, when, join(directory, `${name} ${when}.db`.replace(':', ' '))));
  });
});

describe('jest.useFakeTimers()', () => {
  afterEach(() => {
    jest.useRealTimers();
  });

  it.each([
    ['after', () => library],
    ['before', loadAgain],
  ])('%s the library was loaded leaves the tasks as they are', async (_when, load) => {
    jest.useFakeTimers();
    const tasks = load().backgroundTasks({ retries: { limit: 1, minDelay: 1 }, timeout: 5, onError: () => {} });
    const handles: TaskHandle[] = [];
    let attempts = 0;
    const app = express();
    app.use(tasks, (_req, res) => {
      const list = res.locals.backgroundTasks;
      handles.push(
        list.add(() => {}),
        list.add(() => {
          if (++attempts === 1) throw new Error('to be tried again');
        }),
        list.add(() => new Promise(() => {})),
      );
      res.send('answer');
    });
    const { url } = await serve(app);
    await (await fetch(url)).text();
    await tasks.idle();
    expect(handles.map(({ status }) => status)).toEqual(['succeeded', 'succeeded', 'failed']);
  });

  function loadAgain(): typeof library {
    let again = library;
    jest.isolateModules(() => {
      again = require('../lib/index');
    });
    expect(again).not.toBe(library);
    return again;
  }
});
