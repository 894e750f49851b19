// Runs the functions of the modules that are its arguments, each in a thread, and prints how they ended.

import { runInResponse } from 'express-background-tasks/testing';
import { threads } from 'express-background-tasks/threads';

const pool = threads({ maxThreads: 1 });
for (const work of process.argv.slice(2)) {
  const task = pool.task('work', new URL(work, import.meta.url));
  const { value } = await runInResponse((res) => res.locals.backgroundTasks.add(task, 'a.jpg'));
  console.log(JSON.stringify({ work, ...(await value.finished) }));
}
