// As ../app.cjs, in TypeScript.

const { join }: typeof import('node:path') = require('node:path');
const {
  runInResponse,
}: typeof import('express-background-tasks/testing') = require('express-background-tasks/testing');
const { threads }: typeof import('express-background-tasks/threads') = require('express-background-tasks/threads');

async function main(): Promise<void> {
  const pool = threads({ maxThreads: 1 });
  for (const work of process.argv.slice(2)) {
    const task = pool.task<typeof import('../typed.ts').default>('work', join(__dirname, work));
    const { value } = await runInResponse((res) => res.locals.backgroundTasks.add(task, 'a.jpg'));
    console.log(JSON.stringify({ work, ...(await value.finished) }));
  }
}

void main();
