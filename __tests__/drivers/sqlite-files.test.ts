// What is acknowledged is in the file of that name, whatever becomes of the file, its log and the locks of this process.

import { execFileSync, spawn } from 'node:child_process';
import { randomUUID } from 'node:crypto';
import { once } from 'node:events';
import {
  chmodSync,
  closeSync,
  cpSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  openSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { text } from 'node:stream/consumers';
import { setTimeout as sleep } from 'node:timers/promises';
import Database from 'better-sqlite3';
import { type SqliteOptions, sqlite } from '../../lib/drivers/sqlite/index.js';
import { type TaskEngine, task } from '../../lib/index.js';
import { deferred } from '../fixtures/deferred.js';
import { send } from './fixtures/send.js';
import { describeWith } from './requirements.js';

jest.mock('../../lib/drivers/sqlite/library', () => require('./fixtures/on-better-sqlite3'));

const itOnLinux = process.platform === 'linux' ? it : it.skip;

describeWith({ node: 22 }, 'the files of the SQLite engine', () => {
  const root = mkdtempSync(join(tmpdir(), 'tasks-files-'));
  const engines: TaskEngine[] = [];
  const databases: Database.Database[] = [];
  let folders = 0;
  let folder = '';
  let path = '';

  beforeEach(() => {
    folder = join(root, `${++folders}`);
    mkdirSync(folder);
    path = join(folder, 'tasks.db');
  });

  afterEach(async () => {
    for (const database of databases.splice(0)) database.close();
    await Promise.all(engines.splice(0).map((engine) => engine.close()));
  });

  afterAll(() => rmSync(root, { recursive: true }));

  function open(options: SqliteOptions = { path }): TaskEngine {
    const engine = sqlite(options);
    engines.push(engine);
    return engine;
  }

  function connect(name = path): Database.Database {
    const database = new Database(name);
    databases.push(database);
    return database;
  }

  async function enqueue(engine: TaskEngine): Promise<string> {
    return (await send(engine, { name: 'a', args: [] })).id;
  }

  /** Runs in another process, as `database` has the file open there. Returns what is printed. */
  function elsewhere(code: string, ...args: string[]): string {
    const program = `const database = new (require('better-sqlite3'))(process.argv[1], { timeout: 10_000 });
      ${code}; database.close();`;
    return execFileSync(process.execPath, ['-e', program, path, ...args], { encoding: 'utf8' });
  }

  /** Opens the file in another process, writes to it and closes it. */
  function useElsewhere(): void {
    elsewhere("database.exec('CREATE TABLE IF NOT EXISTS other (a); INSERT INTO other VALUES (1)')");
  }

  function storedElsewhere(): string[] {
    return JSON.parse(
      elsewhere(
        "console.log(JSON.stringify(database.prepare('SELECT id FROM background_tasks ORDER BY seq').pluck().all()))",
      ),
    );
  }

  /** What any program does that reads the file: the locks of this process on it are gone. */
  function dropLocks(): void {
    for (const name of [path, `${path}-shm`]) closeSync(openSync(name, 'r'));
  }

  function useOtherLibrary(): void {
    const { DatabaseSync } = process.getBuiltinModule('node:sqlite') as unknown as NodeSqlite;
    const other = new DatabaseSync(path);
    other.prepare('SELECT count(*) FROM background_tasks').get();
    other.close();
  }

  describe('an acknowledged task is in the file', () => {
    const faults: [string, () => void][] = [
      ['another SQLite library of the process has closed it', useOtherLibrary],
      ['the folder was copied', () => cpSync(folder, `${folder} copied`, { recursive: true })],
      ['the log was removed', () => ['wal', 'shm'].map((name) => rmSync(`${path}-${name}`))],
      ['the file was removed', () => ['', '-wal', '-shm'].map((name) => rmSync(path + name))],
      ['the file alone was removed', () => rmSync(path)],
      [
        'the file was replaced',
        () => {
          connect(`${path}.other`).close();
          renameSync(`${path}.other`, path);
          ['wal', 'shm'].map((name) => rmSync(`${path}-${name}`));
        },
      ],
    ];
    it.each(faults)('after %s', async (_, fault) => {
      const engine = open();
      await enqueue(engine);
      fault();
      const first = await enqueue(engine);
      useElsewhere();
      const second = await enqueue(engine);
      expect(storedElsewhere()).toEqual(expect.arrayContaining([first, second]));
      expect(await engine.get(first)).toMatchObject({ state: 'queued' });
      await engine.close();
      expect(storedElsewhere()).toEqual(expect.arrayContaining([first, second]));
      expect(elsewhere("console.log(database.pragma('integrity_check', { simple: true }))")).toBe('ok\n');
    });

    it.each(faults.slice(0, 2))('also if another process used it right after %s', async (_, fault) => {
      const engine = open();
      const ids = [await enqueue(engine)];
      fault();
      useElsewhere();
      ids.push(await enqueue(engine));
      expect(storedElsewhere()).toEqual(ids);
    });
  });

  it('every acknowledged task is in the file while the folder is copied and others open and close it', async () => {
    const first = open();
    await first.ready();
    await first.close();
    const program = ['../fixtures/typescript.cjs', 'fixtures/sqlite-copied.ts'].map((name) => join(__dirname, name));
    const stdio = ['pipe', 'pipe', 'inherit'] as const;
    const child = spawn(process.execPath, ['--require', ...program, path], { stdio: [...stdio] });
    const closed = once(child, 'close');
    const output = text(child.stdout);
    const others = spawn(process.execPath, ['-e', openAndClose, path], { stdio: 'ignore' });
    await once(others, 'exit');
    child.stdin.end();
    const [, signal] = await closed;
    const ids = (await output).split('\n').slice(0, -1);
    const stored = new Set(storedElsewhere());
    expect(ids.filter((id) => !stored.has(id))).toEqual([]);
    expect([null, 'SIGBUS']).toContain(signal);
    if (signal === null) expect(ids.length).toBeGreaterThan(100);
  });

  it('an engine takes its locks again, before anybody has removed the log', async () => {
    const engine = open();
    dropLocks();
    await enqueue(engine);
    const { ino } = statSync(`${path}-wal`);
    useElsewhere();
    expect(statSync(`${path}-wal`).ino).toBe(ino);
  });

  it('all engines of a process take them again', async () => {
    const [first, second] = [open(), open()];
    dropLocks();
    const ids = [await enqueue(first), await enqueue(second), await enqueue(first)];
    useElsewhere();
    ids.push(await enqueue(second));
    expect(storedElsewhere()).toEqual(ids);
    expect(await first.get(ids[3] ?? '')).toMatchObject({ state: 'queued' });
  });

  it.each([
    ['the log is removed', useOtherLibrary],
    ['the locks are lost', dropLocks],
  ])('a task is stored once if %s while it is being written', async (_, fault) => {
    const engine = open();
    const { exec } = Database.prototype;
    let isOver = false;
    jest.spyOn(Database.prototype, 'exec').mockImplementation(function (this: Database.Database, source) {
      if (!isOver && source === 'PRAGMA synchronous = FULL') {
        isOver = true;
        fault();
      }
      return exec.call(this, source);
    });
    const ids = await Promise.all([enqueue(engine), enqueue(engine)]);
    jest.restoreAllMocks();
    expect(isOver).toBe(true);
    useElsewhere();
    expect(storedElsewhere()).toEqual(ids);
  });

  it('an attempt to open the file again that fails half-way is followed by another one', async () => {
    const engine = open();
    await enqueue(engine);
    for (const last of [1, 2, 5, 20]) {
      dropLocks();
      const { prepare } = Database.prototype;
      let left = last;
      jest.spyOn(Database.prototype, 'prepare').mockImplementation(function (this: Database.Database, source: string) {
        left--;
        if (left === 0) throw Object.assign(new Error('database is locked'), { code: 'SQLITE_BUSY' });
        return prepare.call(this, source);
      });
      const id = await enqueue(engine);
      expect(left).toBeLessThanOrEqual(0);
      jest.restoreAllMocks();
      expect(storedElsewhere()).toContain(id);
    }
  });

  it('get() sees what is in the file', async () => {
    const engine = open();
    const id = await enqueue(engine);
    useOtherLibrary();
    elsewhere("database.exec(\"UPDATE background_tasks SET state = 'succeeded', result = '7', finished_at = 1\")");
    expect(await engine.get(id)).toMatchObject({ state: 'succeeded', result: 7 });
  });

  it('a worker notices within a second, and works what is in the file', async () => {
    const engine = open();
    const ran = deferred<string>();
    await engine.work([task('a', (text: string) => ran.resolve(text))]);
    await sleep(20);
    useOtherLibrary();
    elsewhere(`database.exec(\`INSERT INTO background_tasks (id, name, args, priority, state, run_at, enqueued_at)
      VALUES ('1', 'a', '["from afar"]', 0, 'queued', 1, 1)\`)`);
    const start = performance.now();
    expect(await ran.promise).toBe('from afar');
    expect(performance.now() - start).toBeLessThan(1000);
  });

  it('by way of a link that leads elsewhere now', async () => {
    const link = join(folder, 'link.db');
    symlinkSync(path, link);
    const engine = open({ path: link });
    await enqueue(engine);
    rmSync(link);
    path = join(folder, 'next.db');
    symlinkSync(path, link);
    const id = await enqueue(engine);
    expect(storedElsewhere()).toEqual([id]);
  });

  it('the program may change its directory', async () => {
    const before = process.cwd();
    process.chdir(folder);
    const engine = open({ path: 'tasks.db' });
    process.chdir(before);
    rmSync(path);
    const id = await enqueue(engine);
    expect(storedElsewhere()).toEqual([id]);
  });

  it('where the folder is gone enqueue and get reject with ERR_ENGINE_UNAVAILABLE, until it is back', async () => {
    const engine = open();
    const error = jest.fn();
    await engine.work([task('b', () => {})], { logger: { error } });
    const away = `${folder} is away`;
    renameSync(folder, away);
    await expect(enqueue(engine)).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringContaining('directory does not exist'),
    });
    await expect(engine.get(randomUUID())).rejects.toMatchObject({ code: 'ERR_ENGINE_UNAVAILABLE' });
    while (error.mock.calls.length === 0) await sleep(20);
    renameSync(away, folder);
    const id = await enqueue(engine);
    expect(storedElsewhere()).toEqual([id]);
  });

  it('an engine that closes does not remove the log of others', async () => {
    const engine = open();
    await enqueue(engine);
    useOtherLibrary();
    const other = spawn(process.execPath, ['-e', writeTwice, path], { stdio: ['pipe', 'pipe', 'inherit'] });
    await once(other.stdout, 'data');
    await engine.close();
    expect(existsSync(`${path}-wal`)).toBe(true);
    other.stdin.end('\n');
    await once(other.stdout, 'data');
    expect(elsewhere("console.log(database.prepare('SELECT count(*) FROM other').pluck().get())")).toBe('2\n');
    other.kill();
  });

  it("with the application's database nothing is acknowledged until it is opened anew", async () => {
    const database = connect();
    database.pragma('journal_mode = WAL');
    const engine = open({ database });
    await enqueue(engine);
    useOtherLibrary();
    const refused = { code: 'ERR_ENGINE_UNAVAILABLE', message: expect.stringContaining('open its database again') };
    await expect(enqueue(engine)).rejects.toMatchObject(refused);
    await expect(engine.get(randomUUID())).rejects.toMatchObject(refused);
    database.exec('BEGIN');
    await expect(enqueue(engine)).rejects.toMatchObject(refused);
    database.exec('COMMIT');
  });

  it('the application may set other modes of journal and locking', async () => {
    const database = connect();
    const engine = open({ database });
    const ids = [await enqueue(engine)];
    for (const mode of ['WAL', 'DELETE', 'WAL']) {
      database.pragma(`journal_mode = ${mode}`);
      ids.push(await enqueue(engine));
    }
    expect(storedElsewhere()).toEqual(ids);
    for (const mode of ['EXCLUSIVE', 'NORMAL', 'EXCLUSIVE']) {
      database.pragma('journal_mode = DELETE');
      database.pragma(`locking_mode = ${mode}`);
      database.pragma('journal_mode = WAL');
      ids.push(await enqueue(engine));
    }
    expect(database.prepare('SELECT id FROM background_tasks ORDER BY seq').pluck().all()).toEqual(ids);
  });

  it('a database of a descriptor has no name to compare', async () => {
    closeSync(openSync(path, 'a'));
    const [file, journal] = [openSync(path, 'r+'), openSync(`${path}-journal`, 'w+')];
    const database = new Database(file as unknown as string, { journalFd: journal } as Database.Options);
    databases.push(database);
    const engine = open({ database });
    const id = await enqueue(engine);
    expect(await engine.get(id)).toMatchObject({ state: 'queued' });
  });

  it('what it makes is for the owner only; what is there already keeps its mode', async () => {
    const modeOf = (name: string): number => statSync(name).mode & 0o777;
    await enqueue(open());
    expect([path, `${path}-wal`, `${path}-shm`].map(modeOf)).toEqual([0o600, 0o600, 0o600]);
    path = join(folder, 'shared.db');
    writeFileSync(path, '');
    chmodSync(path, 0o640);
    await enqueue(open());
    expect([path, `${path}-wal`].map(modeOf)).toEqual([0o640, 0o640]);
  });

  it('the log does not stay as large as it was', async () => {
    const engine = open();
    const reader = connect();
    reader.exec('BEGIN');
    reader.prepare('SELECT count(*) FROM background_tasks').get();
    const text = 'x'.repeat(1_000_000);
    for (let count = 0; count < 20; count++) await send(engine, { name: 'a', args: [text] });
    const before = statSync(`${path}-wal`).size;
    reader.exec('COMMIT');
    for (let count = 0; count < 3; count++) await send(engine, { name: 'a', args: [text] });
    expect(before).toBeGreaterThan(17_000_000);
    expect(statSync(`${path}-wal`).size).toBeLessThan(17_000_000);
  });

  itOnLinux('as long as another connection of the process keeps the lost locks, nothing is acknowledged', async () => {
    const engine = open();
    const other = connect();
    other.prepare('SELECT count(*) FROM background_tasks').get();
    dropLocks();
    const started = performance.now();
    await expect(enqueue(engine)).rejects.toMatchObject({
      code: 'ERR_ENGINE_UNAVAILABLE',
      message: expect.stringContaining('the lock on '),
    });
    expect(performance.now() - started).toBeLessThan(5000);
    expect(storedElsewhere()).toEqual([]);
    const enqueued = enqueue(engine);
    await sleep(100);
    other.close();
    const id = await enqueued;
    expect(storedElsewhere()).toEqual([id]);
  });
});

/** What is used of it here. @types/node for Node.js 20 does not know it. */
interface NodeSqlite {
  DatabaseSync: new (path: string) => { prepare(sql: string): { get(): unknown }; close(): void };
}

/** Another process, which is the last one to close the file again and again, as far as it can see. */
const openAndClose = `
  const end = Date.now() + 2000;
  while (Date.now() < end) {
    const database = new (require('better-sqlite3'))(process.argv[1], { timeout: 10_000 });
    database.exec('CREATE TABLE IF NOT EXISTS other (a); INSERT INTO other VALUES (1)');
    database.close();
  }`;

/** Another process that has lost its locks as well. */
const writeTwice = `
  const { closeSync, openSync } = require('node:fs');
  const database = new (require('better-sqlite3'))(process.argv[1]);
  database.exec('CREATE TABLE other (a); INSERT INTO other VALUES (1)');
  closeSync(openSync(process.argv[1], 'r'));
  console.log('once');
  process.stdin.once('data', () => {
    database.exec('INSERT INTO other VALUES (2)');
    console.log('twice');
  });`;
