// Random programs against a small model: whatever an app, its clients and its tasks do, what promises 1 to 13 say holds.
//
// A longer run: PROPERTY_RUNS=5000 npx jest properties. A failure again: PROPERTY_SEED=… PROPERTY_PATH=… npx jest properties.

import { inspect } from 'node:util';
import fc from 'fast-check';
import { BackgroundTasksError, type TaskStatus } from '../lib/index.js';
import { attemptPlan, isThrowingWhenAwaited, type Program, program, timeoutOf, values } from './fixtures/programs.js';
import { type RecordedTask, type Recording, runProgram, whenError } from './fixtures/run-program.js';

const { PROPERTY_RUNS, PROPERTY_SEED, PROPERTY_PATH } = process.env;
const runs = Number(PROPERTY_RUNS ?? 80);
const timeLimit = 60_000 + runs * 500;

// Where a logger that fails is reported. A mock would keep every call of a long run.
const { error } = console;
beforeEach(() => {
  console.error = () => {};
});
afterEach(() => {
  console.error = error;
});

test(
  'promises 1 to 13: every task of a random program runs in its turn, ends in one state, is counted once and reported once',
  async () => {
    await fc.assert(
      fc.asyncProperty(program, async (plan) => {
        const recording = await runProgram(plan);
        const violations = [...recording.violations, ...check(plan, recording)];
        if (violations.length > 0) throw new Error(describeViolations(violations, plan, recording));
      }),
      {
        numRuns: runs,
        interruptAfterTimeLimit: timeLimit - 15_000,
        ...(PROPERTY_SEED === undefined ? {} : { seed: Number(PROPERTY_SEED) }),
        ...(PROPERTY_PATH === undefined ? {} : { path: PROPERTY_PATH }),
      },
    );
  },
  timeLimit,
);

function describeViolations(violations: string[], plan: Program, { log }: Recording): string {
  return [...violations, '', inspect(plan, { depth: null, breakLength: 120 }), '', ...log].join('\n');
}

/** What must be true of a task once it is over. `matches` is asked about what it returned or failed with. */
interface Expected {
  status: TaskStatus;
  attempts: number;
  matches?: (result: unknown) => boolean;
}

function check(plan: Program, { tasks, closing, stats, statsBeforeClose, hookFailures }: Recording): string[] {
  const violations: string[] = [];
  const abandoned = closing.abandoned.map(({ id }) => id);
  for (const task of tasks) {
    const { name, handle, outcome, reports } = task;
    if (outcome === undefined) {
      violations.push(`${name} has no outcome`);
      continue;
    }
    const isAbandoned = abandoned.includes(handle.id);
    const expected: Expected = isAbandoned
      ? { status: 'abandoned', attempts: task.attempts, matches: hasCode('ERR_TASK_ABANDONED') }
      : expectedOf(task, plan);
    const result = 'value' in outcome ? outcome.value : 'error' in outcome ? outcome.error : undefined;
    if (outcome.status !== expected.status) violations.push(`${name} is ${outcome.status}, not ${expected.status}`);
    else if (expected.matches?.(result) === false) violations.push(`${name} has the wrong result`);
    if (task.attempts !== expected.attempts) {
      violations.push(`${name} had ${task.attempts} attempts, not ${expected.attempts}`);
    }
    const isReported = outcome.status === 'failed' || outcome.status === 'abandoned';
    if (reports.length !== (isReported ? 1 : 0)) violations.push(`${name} was reported ${reports.length} times`);
    for (const { error, attempt } of reports) {
      if (!Object.is(error, result)) violations.push(`${name} was reported with another error than its outcome has`);
      if (attempt !== task.attempts) violations.push(`${name} was reported with attempt ${attempt}`);
    }
  }
  const isGivenUp = tasks.filter(({ handle }) => handle.status === 'abandoned').length;
  if (new Set(abandoned).size !== abandoned.length || abandoned.length !== isGivenUp) {
    violations.push(`close() reported ${abandoned.length} abandoned tasks, there are ${isGivenUp}`);
  }
  for (const status of ['succeeded', 'failed'] as const) {
    const ended = stats[status] - statsBeforeClose[status];
    if (closing[status] !== ended) violations.push(`close() reported ${closing[status]} ${status}, there are ${ended}`);
  }
  const reports = tasks.reduce((sum, task) => sum + task.reports.length, 0);
  const expectedHookFailures = /onError (throws|rejects)/.test(plan.options.report) ? reports : 0;
  if (hookFailures !== expectedHookFailures) {
    violations.push(`onError failed ${expectedHookFailures} times, the logger was told of ${hookFailures}`);
  }
  return violations;
}

/** The model: what becomes of a task that close() did not give up. */
function expectedOf(task: RecordedTask, { options }: Program): Expected {
  if (task.cancelledIn === 0) return { status: 'cancelled', attempts: 0 };
  if (options.stopOnError && isBehindFailure(task)) return { status: 'skipped', attempts: 0 };
  const when = task.plan.when ?? options.when ?? 'always';
  const { statusCode, completed } = task.response.outcome;
  if (when === 'throws') return { status: 'failed', attempts: 0, matches: (error) => error === whenError };
  if (when === 'asynchronous') return { status: 'failed', attempts: 0, matches: hasCode('ERR_INVALID_OPTION') };
  if (when !== 'always' && !completed) return { status: 'skipped', attempts: 0 };
  if (when === 'success' && statusCode >= 400) return { status: 'skipped', attempts: 0 };

  const limit = task.plan.retries ?? options.retries ?? 0;
  for (let attempt = 1; attempt <= limit + 1; attempt++) {
    const { ends, matches } = expectedEnd(task, attempt, timeoutOf(task.plan, options) === 'small');
    if (ends === 'never') return { status: 'abandoned', attempts: attempt };
    if (ends === 'well') return { status: 'succeeded', attempts: attempt, matches };
    if (task.cancelledIn === attempt) return { status: 'cancelled', attempts: attempt };
    if (attempt === limit + 1) return { status: 'failed', attempts: attempt, matches };
  }
  throw new Error('unreachable');
}

/** Whether a task added before it failed while it was pending. */
function isBehindFailure({ response, addedAt }: RecordedTask): boolean {
  return response.tasks.some((other) => {
    const failedAt = other.outcome?.status === 'failed' ? other.reports[0]?.at : undefined;
    return failedAt !== undefined && other.addedAt < addedAt && addedAt < failedAt;
  });
}

interface ExpectedEnd {
  ends: 'well' | 'badly' | 'never';
  matches: (result: unknown) => boolean;
}

function expectedEnd(task: RecordedTask, attempt: number, isLimited: boolean): ExpectedEnd {
  const { ends, value } = attemptPlan(task.plan, attempt);
  const matches = (result: unknown): boolean => Object.is(result, values[value]);
  const thrown: ExpectedEnd = { ends: 'badly', matches };
  const returned: ExpectedEnd = isThrowingWhenAwaited(value)
    ? { ends: 'badly', matches: () => true }
    : { ends: 'well', matches };
  if (ends === 'returns') return returned;
  if (ends === 'throws') return thrown;
  const isCancelled = task.cancelledIn === attempt && task.attempts === attempt && task.abortReason === 'AbortError';
  if (isCancelled && ends === 'returns on abort') return returned;
  if (isCancelled && ends === 'throws on abort') return thrown;
  return { ends: isLimited ? 'badly' : 'never', matches: hasCode('ERR_TASK_TIMEOUT') };
}

function hasCode(code: string): (error: unknown) => boolean {
  return (error) => error instanceof BackgroundTasksError && error.code === code;
}
