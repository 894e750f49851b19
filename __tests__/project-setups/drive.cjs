// Loaded before the README's example, which stays as written: lets its server listen on a free port, sends the example's
// request once it listens, waits for what the task writes, and closes the server, so that the program ends.

const { existsSync, readFileSync } = require('node:fs');
const { Server } = require('node:http');
const { setTimeout: sleep } = require('node:timers/promises');

/** The file is there before its line is. */
function logged() {
  const log = existsSync('log.txt') ? readFileSync('log.txt', 'utf8') : '';
  return log.endsWith('\n') ? log.trim() : 'nothing';
}

const { listen } = Server.prototype;
Server.prototype.listen = function listenOnFreePort(_port, ...rest) {
  this.prependListener('request', (_req, res) => {
    res.once('finish', () => console.log(`sent; logged: ${logged()}`));
  });
  this.once('listening', () => drive(this));
  return listen.call(this, 0, ...rest);
};

async function drive(server) {
  const url = `http://localhost:${server.address().port}/send-notification/ann@example.com`;
  const response = await fetch(url, { method: 'POST' });
  console.log(`answer: ${response.status} ${await response.text()}`);
  while (logged() === 'nothing') await sleep(5);
  console.log(`logged: ${logged()}`);
  server.close();
}
