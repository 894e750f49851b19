// What the documentation shows is real: its code type-checks against lib, what can run runs, links lead somewhere.

import { spawnSync } from 'node:child_process';
import { existsSync, readdirSync, readFileSync } from 'node:fs';
import { dirname, join, relative, resolve } from 'node:path';
import ts from 'typescript';

const root = join(__dirname, '..');
const pages = readdirSync(join(root, 'docs'), { encoding: 'utf8', recursive: true }).sort();
const files = ['README.md', ...pages.filter((name) => name.endsWith('.md')).map((name) => `docs/${name}`)];
const read = (file: string): string => readFileSync(join(root, file), 'utf8');

interface Block {
  file: string;
  /** Where its code begins in the file, counted from 1. */
  line: number;
  code: string;
}

/** The reference has signatures, which TypeDoc takes from the sources. */
const written = files.filter((file) => !file.startsWith('docs/reference/'));

const blocks: Block[] = written.flatMap((file) => {
  const text = read(file);
  return [...text.matchAll(/^```ts\n(.*?)^```$/gms)].map((match) => ({
    file,
    line: text.slice(0, match.index).split('\n').length + 1,
    code: match[1] ?? '',
  }));
});

function blockWith(file: string, text: string): string {
  const block = blocks.find(({ file: of, code }) => of === file && code.includes(text));
  if (block === undefined) throw new Error(`no code in ${file} has ${text}`);
  return block.code;
}

/** What the documentation leaves out, since each reader has it: an app, a logger, a database. */
const preamble = `
import type { Express, RequestHandler } from 'express';
import type { Logger as PinoLogger } from 'pino';
import type { BackgroundTasksMiddleware, TaskHandle } from 'express-background-tasks';

declare global {
  const backgroundTasks: typeof import('express-background-tasks').backgroundTasks;
  const app: Express;
  const tasks: BackgroundTasksMiddleware;
  const logger: PinoLogger;
  const mayAsk: RequestHandler;
  const url: string;
  const sentMails: string[];
  const reports: Map<string, TaskHandle>;
  const database: { insert(id: string): Promise<void> };
  const Sentry: { captureException(error: unknown, hint: { tags: Record<string, string | undefined> }): string };
  function sendMail(to: string, text?: string): Promise<void>;
  function recordVisit(path: string): Promise<void>;
  function buildReport(year: number): Promise<void>;
  function updateSearch(id: string): Promise<void>;
  function reportToOnCall(text: string, error: unknown): Promise<void>;
}
`;

/** What is not installed here, or is newer than the types of Node.js that are, as far as the documentation uses it. */
const foreignModules = `
declare module 'node:sqlite' {
  export class DatabaseSync {
    constructor(path: string, options?: { timeout?: number });
    exec(sql: string): void;
    prepare(sql: string): { all(...values: (string | number | null)[]): Record<string, string | number | null>[] };
    close(): void;
  }
}
declare module '@vercel/functions' {
  export const waitUntil: (promise: Promise<unknown>) => void | undefined;
}
declare module '@opentelemetry/sdk-node' {
  export class NodeSDK {
    constructor(options: { instrumentations: import('@opentelemetry/instrumentation').Instrumentation[] });
    start(): void;
  }
}
declare module 'serverless-http' {
  export default function serverless(app: object): (event: object, context: object) => Promise<object>;
}
declare module '@nestjs/common' {
  export const Controller: (path?: string) => ClassDecorator;
  export const Injectable: () => ClassDecorator;
  export const Module: (module: { controllers: object[]; providers: object[] }) => ClassDecorator;
  export const Get: (path?: string) => MethodDecorator;
  export const Post: (path?: string) => MethodDecorator;
  export const Param: (name: string) => ParameterDecorator;
  export const Req: () => ParameterDecorator;
  export const Res: (options?: { passthrough: boolean }) => ParameterDecorator;
  export interface OnApplicationBootstrap {
    onApplicationBootstrap(): Promise<void>;
  }
}
declare module '@nestjs/core' {
  interface NestApplication {
    use(handler: object): this;
    getHttpServer(): import('node:http').Server;
    listen(port: number): Promise<unknown>;
    close(): Promise<void>;
  }
  export const NestFactory: { create(module: object): Promise<NestApplication> };
}
declare module '@prisma/adapter-pg' {
  export class PrismaPg {
    constructor(options: { connectionString: string });
  }
}
declare module '@prisma/client' {
  interface Transaction {
    order: { create(row: { data: { id: number } }): Promise<object> };
    $queryRawUnsafe<T>(query: string, ...values: unknown[]): Promise<T>;
  }
  export class PrismaClient {
    constructor(options: { adapter: object });
    $executeRaw(query: TemplateStringsArray): Promise<number>;
    $transaction<T>(work: (transaction: Transaction) => Promise<T>): Promise<T>;
  }
}
declare module 'vitest' {
  export const expect: typeof import('@jest/globals').expect;
  export const test: (title: string, body: () => Promise<void>) => void;
}
`;

/** The module that docs/threads.md runs in threads. */
const resizeModule = `
export default function resize(file: string, width: number): { file: string; width: number } {
  return { file, width };
}
export function measure(content: Uint8Array): number {
  return content.length;
}
`;

describe('the TypeScript code', () => {
  /** Each block is a module of its own. Their messages stand under the file and the line that a reader finds. */
  const messages = new Map<string, string[]>(files.map((file) => [file, []]));

  beforeAll(() => {
    const sources = new Map<string, string>(
      [
        ['docs-preamble.mts', preamble],
        ['docs-modules.d.ts', foreignModules],
        ['resize.mts', resizeModule],
        ...blocks.map(({ code }, index): [string, string] => [`docs-block-${index}.mts`, `${code}export {};\n`]),
      ].map(([name, text]): [string, string] => [join(root, name ?? ''), text ?? '']),
    );

    const { config } = ts.readConfigFile(join(root, 'tsconfig.json'), ts.sys.readFile);
    const { options } = ts.convertCompilerOptionsFromJson(config.compilerOptions, root);
    Object.assign(options, { noEmit: true, noUnusedLocals: false, noUnusedParameters: false, skipLibCheck: true });
    options.experimentalDecorators = true; // NestJS needs them.
    const paths: Record<string, string[]> = config.compilerOptions.paths;
    options.paths = Object.fromEntries(
      Object.entries(paths).map(([name, targets]) => [name, targets.map((target) => join(root, target))]),
    );
    const host = ts.createCompilerHost(options);
    const { fileExists, readFile, getSourceFile } = host;
    host.fileExists = (name) => sources.has(name) || fileExists(name);
    host.readFile = (name) => sources.get(name) ?? readFile(name);
    host.getSourceFile = (name, version, ...rest) => {
      const text = sources.get(name);
      return text === undefined ? getSourceFile(name, version, ...rest) : ts.createSourceFile(name, text, version);
    };

    const program = ts.createProgram([...sources.keys()], options, host);
    // The library itself is checked by `npm run types`.
    const ours = [...sources.keys()].map((name) => program.getSourceFile(name));
    const diagnostics = [undefined, ...ours].flatMap((file) =>
      file === undefined ? program.getGlobalDiagnostics() : ts.getPreEmitDiagnostics(program, file),
    );
    for (const { file: source, start, messageText } of diagnostics) {
      const text = ts.flattenDiagnosticMessageText(messageText, '\n');
      const block = blocks[Number(source?.fileName.match(/docs-block-(\d+)/)?.[1])];
      if (source === undefined || start === undefined || block === undefined) throw new Error(text);
      const { line } = source.getLineAndCharacterOfPosition(start);
      messages.get(block.file)?.push(`${block.file}:${block.line + line} ${text}`);
    }
  }, 120_000);

  it.each(written)('of %s type-checks', (file) => {
    expect(messages.get(file)).toEqual([]);
  });

  it('is found in full', () => {
    const fences = written.flatMap((file) => read(file).match(/^ *```ts$/gm) ?? []);
    expect(blocks).toHaveLength(fences.length);
  });
});

// The programs among it are run by the tests of the tutorial and of the how-to pages.
describe('the JavaScript code', () => {
  const scripts = written.flatMap((file) =>
    [...read(file).matchAll(/^```js(?!on).*?\n(.*?)^```$/gms)].map(([, code = '']): [string, string] => [file, code]),
  );

  it.each(scripts)('of %s is JavaScript', (_file, code) => {
    const compilerOptions = { allowJs: true, module: ts.ModuleKind.ESNext, target: ts.ScriptTarget.ESNext };
    const { diagnostics = [] } = ts.transpileModule(code, {
      fileName: 'a.mjs',
      reportDiagnostics: true,
      compilerOptions,
    });
    expect(diagnostics.map(({ messageText }) => messageText)).toEqual([]);
  });

  it('is found', () => {
    expect(scripts.length).toBeGreaterThan(20);
  });
});

/** Runs code as a program of its own, each part in a scope of its own. Returns all that it printed. */
function run(...parts: string[]): string {
  const scopes = parts.map((part) => {
    const code = part.replaceAll("'express-background-tasks'", "'./lib/index.ts'");
    return `(() => {${ts.transpile(code, { module: ts.ModuleKind.CommonJS, esModuleInterop: true })}})();\n`;
  });
  const { stdout, stderr, status } = spawnSync(process.execPath, ['--import', 'tsx', '-e', scopes.join('')], {
    cwd: root,
    encoding: 'utf8',
  });
  if (status !== 0) throw new Error(stderr);
  return stdout + stderr;
}

describe('README.md', () => {
  it('has a main example that works as written', () => {
    const output = run(
      `
      import { mkdtempSync, readFileSync, rmSync } from 'node:fs';
      import { Server } from 'node:http';
      import { tmpdir } from 'node:os';
      const directory = mkdtempSync(tmpdir() + '/background-tasks-readme-');
      process.chdir(directory);
      const { listen } = Server.prototype;
      Server.prototype.listen = function () {
        return listen.call(this, 0, async () => {
          const url = 'http://localhost:' + this.address().port + '/send-notification/ada@example.com';
          console.log(await (await fetch(url, { method: 'POST' })).text());
          let log = '';
          while (!log.endsWith('\\n')) {
            await new Promise(setImmediate);
            log = readFileSync('log.txt', { encoding: 'utf8', flag: 'a+' });
          }
          rmSync(directory, { recursive: true });
          process.stdout.write(log, () => process.exit());
        });
      };
      `,
      blockWith('README.md', 'app.listen(3000)'),
    );
    expect(output).toBe(
      '{"message":"Notification sent in the background"}\nnotification for ada@example.com: some notification\n',
    );
  }, 60_000);

  describe('shows logger lines that print the task, the stack, and what was thrown if it is not an error', () => {
    const importLibrary = "import { backgroundTasks } from 'express-background-tasks';\n";
    const lines: Record<string, string> = {
      console: 'app.use(backgroundTasks());\n',
      pino: blockWith('docs/guide.md', "from 'pino'"),
      bunyan: blockWith('docs/guide.md', "from 'bunyan'"),
      winston: blockWith('docs/guide.md', "from 'winston'"),
    };
    let output: string;

    beforeAll(() => {
      output = run(
        ...Object.entries(lines).map(
          ([name, code]) => `
          import express from 'express';
          ${importLibrary}
          const app = express();
          ${code}
          let last;
          app.get('/', (_req, res) => {
            res.locals.backgroundTasks.add(function ${name}Throws() { throw new Error('boom'); });
            last = res.locals.backgroundTasks.add(function ${name}ThrowsText() { throw 'no error, only text'; });
            res.end();
          });
          const server = app.listen(0, async () => {
            await (await fetch('http://localhost:' + server.address().port)).text();
            await last.finished;
            server.close();
            server.closeAllConnections();
          });
          `,
        ),
      );
    }, 60_000);

    it.each(Object.keys(lines))('%s', (name) => {
      expect(output).toMatch(new RegExp(`${name}Throws\\W+ failed`));
      expect(output).toMatch(new RegExp(`Error: boom(\\\\n|\n) +at ${name}Throws `));
      expect(output).toMatch(new RegExp(`${name}ThrowsText\\W+ failed.*no error, only text`));
    });
  });

  it('has the commands for development, each on a line of its own', () => {
    expect(read('README.md')).toContain('\n## Development\n\n```sh\nnpm ci && npm run demo\nnpm ci && npm test\n```\n');
  });
});

describe('docs/errors.md', () => {
  const codes = read('lib/errors.ts').match(/(?<=\| ')ERR_\w+(?=')/g) ?? [];

  it('has a section for each code, and none for others', () => {
    expect(codes.length).toBeGreaterThan(5);
    const headings = read('docs/errors.md').match(/(?<=^## )ERR_.*/gm);
    expect(headings?.toSorted()).toEqual(codes.toSorted());
  });

  it.each(codes)('says of %s what happened, why, and what to do', (code) => {
    const section = read('docs/errors.md').split(`\n## ${code}\n`)[1]?.split('\n## ')[0];
    expect(section?.match(/(?<=^\*\*).*?(?=\.\*\*)/gm)).toEqual(['What happened', 'Why', 'What to do']);
  });
});

/** As GitHub does it. */
function anchor(heading: string): string {
  return heading
    .toLowerCase()
    .replace(/[^\p{L}\p{N} _-]/gu, '')
    .replaceAll(' ', '-');
}

/** Headings of the same text are counted. */
function anchorsOf(page: string): string[] {
  const headings = (page.match(/(?<=^#+ ).*/gm) ?? []).map(anchor);
  const counted = headings.map((name, index) => {
    const before = headings.slice(0, index).filter((other) => other === name).length;
    return before === 0 ? name : `${name}-${before}`;
  });
  return [...counted, ...(page.match(/(?<=<a id=")[^"]*/g) ?? [])];
}

describe('the links', () => {
  it.each([...files, 'CHANGELOG.md'])('of %s lead to files and headings that are there', (file) => {
    const links = [...read(file).matchAll(/\]\((?!https?:)([^)#]*)(?:#([^)]*))?\)/g)];
    const dead = links.filter(([, path = '', heading]) => {
      const target = path === '' ? join(root, file) : resolve(root, dirname(file), path);
      if (!existsSync(target)) return true;
      if (heading === undefined) return false;
      return !anchorsOf(read(relative(root, target))).includes(heading);
    });
    expect(dead.map(([link]) => link)).toEqual([]);
  });
});
