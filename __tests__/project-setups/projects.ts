// The projects of this folder, each in a folder in which npm has installed the packed tarball.

import { cpSync, mkdtempSync, readFileSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { install, root, run } from '../fixtures/packed.js';

export const example = firstExampleOf(readFileSync(join(root, 'README.md'), 'utf8'));

export const exampleOutput = [
  'sent; logged: nothing',
  'answer: 200 {"message":"Notification sent in the background"}',
  'logged: notification for ann@example.com: some notification',
];

const withTypes = { '@types/node': '@types/node' };

const packages = {
  'express-5': { express: 'express', '@types/express': '@types/express', ...withTypes },
  'express-4': { express: 'express4', '@types/express': 'types-express4', ...withTypes },
  threads: { express: 'express', piscina: 'piscina' },
};

export type Installed = keyof typeof packages;

export class Projects {
  readonly folder = mkdtempSync(join(tmpdir(), 'project-setups-'));

  async install(...names: Installed[]): Promise<void> {
    await Promise.all(names.map((name) => install(join(this.folder, name), packages[name])));
  }

  create(installed: Installed, setup: string): string {
    const project = mkdtempSync(join(this.folder, installed, `${setup}-`));
    cpSync(join(__dirname, setup), project, { recursive: true });
    return project;
  }

  remove(): void {
    rmSync(this.folder, { recursive: true, force: true });
  }
}

export async function runExample(project: string): Promise<string[]> {
  const { stdout } = await run(project, process.execPath, '--require', join(__dirname, 'drive.cjs'), 'app.js');
  return stdout.trim().split('\n');
}

function firstExampleOf(markdown: string): string {
  const code = /^```ts\n(.*?)^```$/ms.exec(markdown)?.[1];
  if (code === undefined) throw new Error('the README has no example in TypeScript');
  return code;
}
