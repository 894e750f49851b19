// The floor: the smallest middleware that keeps this library's main promises, and nothing besides. Tasks run after the
// response, in order, isolated, each where the AsyncLocalStorage stores are those of its add() and currentTask() finds it;
// lists take turns with the event loop; each task has a handle with its state and end, and is counted. No timeout, retries,
// cancel, limits, close(), tracing, engines, no care for slow readers, pipelining and hostile values.

import { AsyncLocalStorage, AsyncResource } from 'node:async_hooks';
import onFinished from 'on-finished';

const scope = new AsyncLocalStorage();
const stats = { pending: 0, running: 0, succeeded: 0, failed: 0 };
const timeSlice = 5;

let ready = [];
let sliceEnd = 0;

class Handle extends AsyncResource {
  status = 'pending';
  #finished = undefined;
  #resolve = undefined;

  constructor(fn, args) {
    super('task');
    this.fn = fn;
    this.args = args;
  }

  get finished() {
    this.#finished ??= new Promise((resolve) => {
      this.#resolve = resolve;
    });
    return this.#finished;
  }

  async run() {
    stats.pending--;
    stats.running++;
    this.status = 'running';
    let result;
    try {
      result = await this.runInAsyncScope(enterAndCall, this);
      this.status = 'succeeded';
    } catch (error) {
      result = error;
      this.status = 'failed';
      console.error(error);
    }
    stats.running--;
    stats[this.status]++;
    this.#resolve?.({ status: this.status, result });
  }
}

function enterAndCall() {
  scope.enterWith(this);
  return this.fn(...this.args);
}

class List {
  #tasks = [];
  #res;

  constructor(res) {
    this.#res = res;
  }

  add(fn, ...args) {
    const handle = new Handle(fn, args);
    stats.pending++;
    if (this.#tasks.push(handle) === 1) onFinished(this.#res, () => this.#makeReady());
    return handle;
  }

  #makeReady() {
    if (ready.push(this) === 1) setImmediate(runReady);
  }

  async run() {
    for (let task = this.#tasks.shift(); task !== undefined; task = this.#tasks.shift()) {
      await task.run();
      if (performance.now() < sliceEnd) continue;
      this.#makeReady();
      return;
    }
  }
}

function runReady() {
  const lists = ready;
  ready = [];
  sliceEnd = performance.now() + timeSlice;
  for (const list of lists) void list.run();
}

export function smallest(_req, res, next) {
  const list = new List(res);
  res.locals.backgroundTasks = list;
  scope.run(list, next);
}
