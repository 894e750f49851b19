// Somebody who goes through a page of the tutorial to the letter: types each command, and compares what two terminals show
// with the page.

import { type ChildProcessByStdio, spawn } from 'node:child_process';
import { EventEmitter, once } from 'node:events';
import { writeFileSync } from 'node:fs';
import { delimiter, dirname, join } from 'node:path';
import type { Readable } from 'node:stream';
import { freePort } from '../fixtures/free-port.js';
import { cleanEnvironment, run } from '../fixtures/packed.js';
import type { Page, Step } from './page.js';

/** A way to run the programs. */
export interface Language {
  name: string;
  extension: 'ts' | 'js';
  /** What stands in place of `npx tsx` of the page. */
  command: string;
}

/** How long a terminal may take to show what the page has, in ms. */
const patience = 60_000;

export class Reader {
  readonly #folder: string;
  readonly #language: Language;
  /** The ids of the page, and those that this server has given out. */
  readonly #ids = new Map<string, string>();
  #port = 0;
  #server: ChildProcessByStdio<null, Readable, null> | undefined;
  /** What the server has shown since the last step. */
  #shown = '';
  /** Emits `change` when the server shows something, and when it is over. */
  readonly #terminal = new EventEmitter();

  constructor(folder: string, language: Language) {
    this.#folder = folder;
    this.#language = language;
  }

  /** Rejects where something else happens than the page says. The visitor comes at the end of the page. */
  async follow(page: Page, visitor?: (url: string) => Promise<void>): Promise<void> {
    this.#port = await freePort();
    try {
      for (const step of page.steps) await this.#take(step);
      await visitor?.(`http://localhost:${this.#port}`);
      await this.#interrupt(''); // It has shown nothing else.
    } finally {
      this.#kill('SIGKILL');
    }
  }

  /** Starts the server of a page, for the time of the visit. */
  async visit(page: Page, visitor: (url: string) => Promise<void>): Promise<void> {
    const start = page.steps.findIndex(({ kind }) => kind === 'start');
    await this.follow({ ...page, steps: page.steps.slice(0, start + 2) }, visitor);
  }

  #take(step: Step): void | Promise<void> {
    switch (step.kind) {
      case 'file':
        return this.write(step.name, step.content);
      case 'command':
        return this.#type(step.command, step.output);
      case 'start':
        return this.#start(step.command);
      case 'shows':
        return this.#expectShown(step.output);
      case 'interrupt':
        return this.#interrupt(step.output);
    }
  }

  /** Programs in the other language are left out. */
  write(name: string, content: string): void {
    const isOther = /\.(ts|js)$/.test(name) && !name.endsWith(`.${this.#language.extension}`);
    if (!isOther) writeFileSync(join(this.#folder, name), content);
  }

  async #type(command: string, expected: string): Promise<void> {
    const { stdout } = await run(this.#folder, 'env', ...this.#inShell(this.#adapt(command)));
    const actual = stdout.replaceAll('\r', '').trim();
    if (!this.#matches(actual, expected)) throw new Error(difference(`$ ${command}`, actual, expected));
  }

  #start(command: string): void {
    // As in a terminal: both kinds of output in their order, and Ctrl+C reaches the whole group.
    const server = spawn('env', this.#inShell(`exec ${this.#adapt(command)} 2>&1`), {
      cwd: this.#folder,
      env: cleanEnvironment(),
      detached: true,
      stdio: ['ignore', 'pipe', 'inherit'],
    });
    this.#server = server;
    this.#shown = '';
    server.stdout.setEncoding('utf8').on('data', (text: string) => {
      this.#shown += text;
      this.#terminal.emit('change');
    });
    server.once('close', () => {
      this.#server = undefined;
      this.#terminal.emit('change');
    });
  }

  async #expectShown(expected: string): Promise<void> {
    const signal = AbortSignal.timeout(patience);
    while (!this.#matches(this.#shown.trim(), expected)) {
      const mayShowMore = this.#server !== undefined && !signal.aborted;
      if (!mayShowMore) throw new Error(difference('The server shows something else.', this.#shown.trim(), expected));
      await once(this.#terminal, 'change', { signal }).catch(() => {});
    }
    this.#shown = '';
  }

  async #interrupt(expected: string): Promise<void> {
    const signal = AbortSignal.timeout(patience);
    this.#kill('SIGINT');
    while (this.#server !== undefined) await once(this.#terminal, 'change', { signal });
    await this.#expectShown(expected);
  }

  /** The program and what it has started. */
  #kill(signal: NodeJS.Signals): void {
    if (this.#server?.pid === undefined) return;
    try {
      process.kill(-this.#server.pid, signal);
    } catch {
      // It has just ended by itself.
    }
  }

  /** Arguments of `env`: programs of the project are found, and the server listens on its own port. */
  #inShell(command: string): string[] {
    const path = [join(this.#folder, '../node_modules/.bin'), dirname(process.execPath), process.env['PATH']];
    return [`PATH=${path.join(delimiter)}`, `PORT=${this.#port}`, 'bash', '-c', command];
  }

  /** A command of the page as it is here. */
  #adapt(command: string): string {
    const { command: start, extension } = this.#language;
    let adapted = command.replaceAll('localhost:3000', `localhost:${this.#port}`);
    for (const [ofPage, real] of this.#ids) adapted = adapted.replaceAll(ofPage, real);
    const inLanguage = adapted.replace(/^npx tsx (.*)\.ts$/, `${start} $1.${extension}`);
    return inLanguage.replace(' --test ', ' --test --test-reporter=spec '); // As in a terminal, on each version of Node.js.
  }

  /** Remembers which ids stand for those of the page. */
  #matches(actual: string, expected: string): boolean {
    const newIds: string[] = [];
    const withIds = patternOf(expected).replace(uuid, (ofPage) => {
      const known = this.#ids.get(ofPage);
      if (known !== undefined) return known;
      if (newIds.includes(ofPage)) return `\\${newIds.indexOf(ofPage) + 1}`;
      newIds.push(ofPage);
      return `(${uuid.source})`;
    });
    const match = new RegExp(`^${withIds.replaceAll('localhost:3000', `localhost:${this.#port}`)}$`).exec(actual);
    if (match === null) return false;
    for (const [index, ofPage] of newIds.entries()) this.#ids.set(ofPage, match[index + 1] ?? '');
    return true;
  }
}

const uuid = /[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}/g;

/** The text of a page as a pattern: times, durations and folders are others, and … stands for anything. */
function patternOf(expected: string): string {
  return expected
    .replace(/[\\^$.*+?()[\]{}|/]/g, '\\$&')
    .replaceAll('…', '[^]*?')
    .replace(/\d{4}-\d\d-\d\dT[\d:]+\\\.\d{3}Z/g, '\\d{4}-\\d\\d-\\d\\dT[\\d:]+\\.\\d{3}Z')
    .replace(/\d+\\\.\d+ms/g, '\\d+(?:\\.\\d+)?ms')
    .replace(/\\\/home\\\/ada\\\/tutorial\\\/([\w-]+)\\\.ts/g, '(?:file:)?\\S+/$1\\.[tj]s');
}

function difference(where: string, actual: string, expected: string): string {
  return `${where}\n\nOn the page:\n${expected}\n\nHere:\n${actual}`;
}
