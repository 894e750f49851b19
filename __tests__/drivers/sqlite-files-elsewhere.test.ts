// The SQLite engine on a system that shows a process neither its locks nor its open files: it sees what became of the files.

import { execFileSync } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import Database from 'better-sqlite3';
import { sqlite } from '../../lib/drivers/sqlite/index.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

jest.mock('node:fs', () => {
  const fs = jest.requireActual('node:fs');
  return {
    ...fs,
    readdirSync: (path: string) => {
      if (path === '/dev/fd') throw Object.assign(new Error('no such directory'), { code: 'ENOENT' });
      return fs.readdirSync(path);
    },
  };
});

describeWith({ node: 22 }, 'the files of the SQLite engine, on another system', () => {
  const directory = mkdtempSync(join(tmpdir(), 'tasks-elsewhere-'));

  afterAll(() => rmSync(directory, { recursive: true }));

  /** In another process. */
  function storedIds(path: string): string[] {
    const program = `const database = new (require('better-sqlite3'))(process.argv[1]);
      console.log(JSON.stringify(database.prepare('SELECT id FROM background_tasks ORDER BY seq').pluck().all()));
      database.close();`;
    return JSON.parse(execFileSync(process.execPath, ['-e', program, path], { encoding: 'utf8' }));
  }

  it('an acknowledged task is in the file after the log was removed', async () => {
    const path = join(directory, 'own.db');
    const engine = sqlite({ path });
    await send(engine, { name: 'a', args: [] });
    for (const name of ['wal', 'shm']) rmSync(`${path}-${name}`);
    const { id } = await send(engine, { name: 'a', args: [] });
    expect(storedIds(path)).toEqual([id]);
    await engine.close();
    expect(storedIds(path)).toEqual([id]);
  });

  it("with the application's database nothing is acknowledged then", async () => {
    const path = join(directory, 'app.db');
    const database = new Database(path);
    database.pragma('journal_mode = WAL');
    const engine = sqlite({ database });
    await send(engine, { name: 'a', args: [] });
    rmSync(`${path}-wal`);
    await expect(send(engine, { name: 'a', args: [] })).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    await engine.close();
    database.close();
  });
});
