// An Express server for the benchmarks, in a process of its own. Its argument is the kind of app.

import { appOf } from './app.mjs';

const server = appOf(process.argv[2]).listen(0, '127.0.0.1', () => {
  process.send({ port: server.address().port });
});
