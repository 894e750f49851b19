// From the request to the worker in another process, over each engine: one trace.

import { type ChildProcess, fork } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { SpanKind } from '@opentelemetry/api';
import type { EngineStore } from '../drivers/conformance.js';
import { createStore as bullmqStore } from '../drivers/fixtures/bullmq.js';
import { createStore as pgBossStore } from '../drivers/fixtures/pg-boss.js';
import { kill, Seen } from '../drivers/fixtures/suite-tools.js';
import { describeWith, type Requirements } from '../drivers/requirements.js';
import type { SpanReport, TracedReport } from './fixtures/traced-process.js';

const patience = 60_000;

interface Subject {
  name: string;
  requirements: Requirements;
  module: string;
  createStore(): EngineStore;
}

const subjects: Subject[] = [
  { name: 'sqlite', requirements: { node: 22 }, module: 'sqlite', createStore: sqliteStore },
  {
    name: 'pg-boss',
    requirements: { node: 22, server: ['PostgreSQL', 5432] },
    module: 'pg-boss',
    createStore: pgBossStore,
  },
  { name: 'bullmq', requirements: { server: ['Redis', 6379] }, module: 'bullmq', createStore: bullmqStore },
];

function sqliteStore(): EngineStore {
  const folder = mkdtempSync(join(tmpdir(), 'tasks-traced-'));
  return {
    config: { path: join(folder, 'tasks.db'), pollInterval: 50 },
    remove: () => rmSync(folder, { recursive: true }),
  };
}

const drivers = join(__dirname, '../drivers/fixtures');

for (const { name, requirements, module, createStore } of subjects) {
  describeWith(requirements, `one trace over ${name}`, () => {
    const children: ChildProcess[] = [];
    let store: EngineStore;

    beforeEach(() => {
      store = createStore();
    });

    afterEach(async () => {
      await Promise.all(children.splice(0).map(kill));
      await store.remove();
    }, patience);

    async function start(mode: 'serve' | 'work', reports: Seen<TracedReport>, target = ''): Promise<number> {
      const args = [mode, join(drivers, `${module}.ts`), JSON.stringify(store.config), target];
      const child = fork(join(__dirname, 'fixtures/traced-process.ts'), args, {
        execArgv: ['--require', join(__dirname, '../fixtures/typescript.cjs')],
      });
      children.push(child);
      const own = new Seen<TracedReport>();
      child.on('message', (report) => {
        own.add(report as TracedReport);
        reports.add(report as TracedReport);
      });
      const ready = await own.first(({ event }) => event === 'ready');
      return ready.event === 'ready' ? ready.port : 0;
    }

    it(
      'the request, the enqueue, both attempts, what they call, and the task after the response',
      async () => {
        const reports = new Seen<TracedReport>();
        const port = await start('serve', reports);
        await start('work', reports, String(port));
        expect((await fetch(`http://127.0.0.1:${port}/orders`, { method: 'POST' })).status).toBe(202);

        const find = (fits: (span: SpanReport) => boolean): Promise<SpanReport> =>
          reports.first((report) => report.event === 'span' && fits(report)) as Promise<SpanReport>;
        const request = await find(({ process, kind, name: title, parentId }) => {
          return process === 'serve' && kind === SpanKind.SERVER && title === 'POST' && parentId === undefined;
        });
        const enqueued = await find(({ name: title }) => title === 'enqueue ship');
        const first = await find(({ name: title, attempt }) => title === 'process ship' && attempt === 1);
        const second = await find(({ name: title, attempt }) => title === 'process ship' && attempt === 2);
        const notified = await find(({ name: title }) => title === 'task notify');
        const called = await find(({ kind, parentId }) => kind === SpanKind.CLIENT && parentId === second.spanId);
        const answered = await find(({ kind, parentId }) => kind === SpanKind.SERVER && parentId === called.spanId);
        const notifying = await find(({ kind, parentId }) => kind === SpanKind.CLIENT && parentId === notified.spanId);

        expect([enqueued.process, first.process, second.process, answered.process]).toEqual([
          'serve',
          'work',
          'work',
          'serve',
        ]);
        expect([enqueued.parentId, notified.parentId]).toEqual([request.spanId, request.spanId]);
        expect([first.parentId, second.parentId]).toEqual([enqueued.spanId, enqueued.spanId]);
        const traces = [enqueued, first, second, notified, called, answered, notifying].map(({ traceId }) => traceId);
        expect(new Set(traces)).toEqual(new Set([request.traceId]));
      },
      patience,
    );
  });
}
