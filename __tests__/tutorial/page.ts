// A page of the tutorial as a reader goes through it: files to write, commands to type, and what two terminals show.

import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { root } from '../fixtures/packed.js';

export type Step =
  | { kind: 'file'; name: string; content: string }
  /** In the terminal of the reader: a command, and its whole output. */
  | { kind: 'command'; command: string; output: string }
  /** In the terminal of the server: a program is started. */
  | { kind: 'start'; command: string }
  /** What the server shows next. */
  | { kind: 'shows'; output: string }
  /** Ctrl+C, and what the server shows until its end. */
  | { kind: 'interrupt'; output: string };

export interface Page {
  title: string;
  steps: Step[];
  /** The packages that the reader installs. */
  packages: string[];
}

export function readPage(name: string): Page {
  const text = readFileSync(join(root, 'docs/tutorial', name), 'utf8');
  const fences = [...text.matchAll(/^```(\w+)(?: (\S+))?\n(.*?)^```$/gms)];
  return {
    title: /(?<=^# ).*/.exec(text)?.[0] ?? name,
    steps: fences.flatMap(([, language = '', file, content = '']): Step[] => {
      if (file !== undefined) return [{ kind: 'file', name: file, content }];
      if (language === 'console') return commandsIn(content).map((lines) => ({ kind: 'command', ...lines }));
      if (language === 'text') return serverStepsIn(content);
      return [];
    }),
    packages: [...text.matchAll(/^npm install (?:--save-dev )?(.*)$/gm)].flatMap(([, names = '']) => names.split(' ')),
  };
}

/** Each line behind a `$`, with what stands below it. */
function commandsIn(content: string): { command: string; output: string }[] {
  return content
    .split(/^\$ /m)
    .slice(1)
    .map((lines) => {
      const [command = '', ...output] = lines.trimEnd().split('\n');
      return { command, output: output.join('\n') };
    });
}

function serverStepsIn(content: string): Step[] {
  const [before = ''] = content.split(/^\$ /m);
  const shown = before.trimEnd();
  const steps: Step[] = commandsIn(content).flatMap(({ command, output }): Step[] => [
    { kind: 'start', command },
    { kind: 'shows', output },
  ]);
  // A terminal shows it where it is pressed.
  if (/^\^C$/m.test(shown)) steps.unshift({ kind: 'interrupt', output: shown.replace(/^\^C$\n?/m, '').trim() });
  else if (shown !== '') steps.unshift({ kind: 'shows', output: shown });
  return steps;
}
