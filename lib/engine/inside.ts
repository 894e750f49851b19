// Whether a call is made inside a task of an engine. A close() that waited for its caller would wait for ever.

import { Attempt } from '../task/attempt.js';
import { scope, type TaskEnqueuer } from '../task/scope.js';

export function isInTaskOf(engine: TaskEnqueuer | undefined): boolean {
  const here = scope.getStore();
  return here instanceof Attempt && here.state === 'running' && here.enqueuer === engine;
}
