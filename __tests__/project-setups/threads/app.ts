// As app.mjs, in TypeScript.

import { runInResponse } from 'express-background-tasks/testing';
import { type ThreadPool, threads } from 'express-background-tasks/threads';

const pool: ThreadPool = threads({ maxThreads: 1 });
for (const work of process.argv.slice(2)) {
  const task = pool.task<typeof import('./typed.ts').default>('work', new URL(work, import.meta.url));
  const { value } = await runInResponse((res) => res.locals.backgroundTasks.add(task, 'a.jpg'));
  console.log(JSON.stringify({ work, ...(await value.finished) }));
}
