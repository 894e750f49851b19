// The entry point express-background-tasks/threads: tasks that compute, in threads of piscina.

export { type ThreadOptions, type ThreadPool, type ThreadTaskOptions, threads } from './threads.js';
