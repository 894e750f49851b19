// The call of a task's function, in the context that belongs to it.

import { AsyncResource } from 'node:async_hooks';
import { canEnter, type Scope, scope } from './scope.js';
import type { AttemptTrace } from './tracing.js';
import type { AnyFunction } from './types.js';

/** A function with its arguments, and the AsyncLocalStorage stores of the code that made this. One of them is the response. */
export class Call extends AsyncResource {
  constructor(
    readonly fn: AnyFunction,
    readonly args: readonly unknown[],
  ) {
    super('BackgroundTask');
  }

  /** Calls the function in an attempt, by way of its trace if there is one. */
  run(attempt: Scope, trace: AttemptTrace | undefined): unknown {
    return canEnter
      ? this.runInAsyncScope(enterAndCall, this, attempt, trace)
      : this.runInAsyncScope(scope.run, scope, attempt, callFunction, this, trace);
  }

  /** Calls another function in the same context, but outside of any attempt. */
  outside<R>(outer: Scope, fn: () => R): R {
    // The scope may hold the attempt that called add() or, on Node 20 and 22, one of this task.
    return this.runInAsyncScope<typeof scope, R>(scope.run, scope, outer, fn);
  }
}

/** For {@link Call}, whose resource puts the stores back: `run()` would copy them all once more to take the attempt out. */
function enterAndCall(this: Call, attempt: Scope, trace: AttemptTrace | undefined): unknown {
  scope.enterWith(attempt);
  return callFunction(this, trace);
}

function callFunction({ fn, args }: Call, trace: AttemptTrace | undefined): unknown {
  return trace === undefined ? Reflect.apply(fn, undefined, args) : trace.call(fn, args);
}
