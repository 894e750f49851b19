// As app.mjs, in CommonJS.

const { join } = require('node:path');
const { runInResponse } = require('express-background-tasks/testing');
const { threads } = require('express-background-tasks/threads');

async function main() {
  const pool = threads({ maxThreads: 1 });
  for (const work of process.argv.slice(2)) {
    const task = pool.task('work', join(__dirname, work));
    const { value } = await runInResponse((res) => res.locals.backgroundTasks.add(task, 'a.jpg'));
    console.log(JSON.stringify({ work, ...(await value.finished) }));
  }
}

void main();
