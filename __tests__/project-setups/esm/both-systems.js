// One program that uses the package through import and through require(): they must be one implementation.

import { once } from 'node:events';
import { createRequire } from 'node:module';
import express from 'express';
import * as imported from 'express-background-tasks';

const required = createRequire(import.meta.url)('express-background-tasks');

const app = express();
app.use(required.backgroundTasks());
app.get('/', (_req, res) => {
  imported.after(() => console.log(`task "${imported.currentTask().name}" is "${required.currentTask().name}"`));
  res.end();
});
const server = app.listen(0);
await once(server, 'listening');
await (await fetch(`http://localhost:${server.address().port}`)).text();
server.close();

const names = Object.keys(required).sort();
const entries = Object.entries(imported).sort();
console.log(`same names: ${names.join() === entries.map(([name]) => name).join()}`);
console.log(`same values: ${entries.every(([name, value]) => value === required[name])}`);
