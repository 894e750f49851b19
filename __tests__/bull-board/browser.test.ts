// The page of bull-board in a real browser: somebody on call looks at each tab, and repairs what has failed.

import { TaskEngineAdapter } from '../../lib/bull-board/index.js';
import { currentTask, task } from '../../lib/index.js';
import { type MemoryEngine, memory } from '../../lib/testing/index.js';
import { send } from '../drivers/fixtures/send.js';
import { Gate, over, reaches } from '../drivers/fixtures/suite-tools.js';
import { describeWith } from '../drivers/requirements.js';
import { chromiumRuns, type OpenPage, openPage } from '../fixtures/browser.js';
import { serveBoard } from '../fixtures/serve-board.js';

jest.setTimeout(120_000);

describeWith({ program: chromiumRuns }, 'the page of bull-board', () => {
  let engine: MemoryEngine;
  let opened: OpenPage;
  let gate: Gate;

  beforeEach(async () => {
    gate = new Gate();
    engine = memory();
    const board = await serveBoard(new TaskEngineAdapter(engine, { displayName: 'Background work' }));
    opened = await openPage(`${board.url}/queue/tasks`);
  });

  afterEach(async () => {
    await opened.page.close();
    gate.open();
    await engine.close();
    expect(opened.errors).toEqual([]);
  });

  it('opens each tab, with what is in it', async () => {
    const { page } = opened;
    await engine.schedule('nightly', { cron: '0 3 * * *' }, task<[]>('report'));
    await engine.work(
      [
        task('import', () => ({ rows: 2 })),
        task('fail', () => {
          throw new TypeError('no such file');
        }),
        task('run', () => {
          currentTask()?.progress(40);
          return gate.opened;
        }),
      ],
      { onError: () => {} },
    );
    const done = await send(engine, { name: 'import', args: ['a.csv'] });
    const failed = await send(engine, { name: 'fail', args: ['b.csv'] });
    const running = await send(engine, { name: 'run', args: ['c.csv'] });
    const waiting = await send(engine, { name: 'nobody', args: ['d.csv'] });
    const delayed = await send(engine, { name: 'nobody', args: ['e.csv'], delay: 3_600_000 });
    await over(engine, done.id);
    await over(engine, failed.id);
    await reaches(engine, running.id, ({ progress }) => progress === 40);

    const tabs: [status: string, id: string, says: string][] = [
      ['active', running.id, '40%'],
      ['waiting', waiting.id, 'd.csv'],
      ['completed', done.id, 'a.csv'],
      ['failed', failed.id, 'no such file'],
      ['delayed', delayed.id, 'Will run at'],
    ];
    for (const [status, id, says] of tabs) {
      await page.click(`a[href$="/queue/tasks?status=${status}"]`);
      await page.locator('a', { hasText: id }).waitFor();
      await page.locator(`text=${says}`).first().waitFor();
    }
    for (const what of ['Data', 'Progress', 'Options', 'Logs', 'Error']) {
      await page.locator('[role=tab]', { hasText: what }).first().click();
    }

    await page.locator('a', { hasText: delayed.id }).click();
    await page.locator('text=e.csv').first().waitFor();
    await page.goto(page.url().replace(/queue.*/, 'job-schedulers'));
    await page.locator('text=nightly').first().waitFor();
    await page.goto(page.url().replace(/job-schedulers.*/, ''));
    await page.locator('text=Background work').first().waitFor();
  });

  it('retries a failed task by a click, and it succeeds', async () => {
    const { page } = opened;
    let isBroken = true;
    const sync = task('sync', (_user: string) => {
      if (isBroken) throw new Error('the server does not answer');
    });
    await engine.work([sync], { onError: () => {} });
    const { id } = await engine.enqueue(sync, 'ada');
    await over(engine, id);
    isBroken = false;

    await page.click('a[href$="/queue/tasks?status=failed"]');
    await page.locator('a', { hasText: id }).click();
    await page.locator('text=the server does not answer').first().waitFor();
    await page.click('[class*=jobActions] button');
    await page.click('text=Confirm');
    expect(await reaches(engine, id, ({ state }) => state === 'succeeded')).toMatchObject({ attempts: 2 });
    await page.locator('text=Finished at').first().waitFor();
  });
});
