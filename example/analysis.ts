// What is computed of an upload, in a thread: a large file would hold up every request. Threads load this module by its name.

import { readFile } from 'node:fs/promises';
import { setTimeout as sleep } from 'node:timers/promises';
import { currentTask } from 'express-background-tasks';

const steps = 20;

export interface Analysis {
  bytes: number;
  lines: number;
  words: number;
}

/**
 * Its argument is JSON, so it gets the name of the file, not the content. It may run twice, if a worker dies: it only reads,
 * so twice is as good as once. It fails on what is no text, which `GET /tasks/:id` tells, and the worker reports.
 */
export async function analyse(file: string): Promise<Analysis> {
  const content = await readFile(file);
  const lines = new TextDecoder('utf-8', { fatal: true }).decode(content).split('\n');
  let words = 0;
  for (let step = 0; step < steps; step++) {
    const part = lines.slice((lines.length * step) / steps, (lines.length * (step + 1)) / steps);
    for (const line of part) words += line.split(/\s+/).filter((word) => word !== '').length;
    currentTask()?.progress({ percent: (100 * (step + 1)) / steps });
    // Stands for slow work: half a second for a small file, ten seconds for one of 5 MB.
    await sleep(Math.min(500, 25 + content.length / 10_000), undefined, { signal: currentTask()?.signal });
  }
  return { bytes: content.length, lines: lines.length, words };
}
