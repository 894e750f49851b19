// The page of the example, in a real browser: somebody sends files, follows them, and stops one.

import { mkdtempSync, rmSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { makeApp } from '../example/app.js';
import { analyseUpload } from '../example/uploads.js';
import type { TaskEngine } from '../lib/index.js';
import { createEngine } from './drivers/fixtures/sqlite.js';
import { reaches } from './drivers/fixtures/suite-tools.js';
import { describeWith } from './drivers/requirements.js';
import { chromiumRuns, type OpenPage, openPage } from './fixtures/browser.js';
import { type Served, serve } from './fixtures/serve.js';

describeWith({ node: 22, program: chromiumRuns }, 'the page of the example', () => {
  const directory = mkdtempSync(join(tmpdir(), 'background-tasks-page-'));
  let engine: TaskEngine;
  let served: Served;
  let opened: OpenPage;

  beforeEach(async () => {
    engine = createEngine({ path: join(directory, 'tasks.db') });
    served = await serve(makeApp(join(directory, 'log.txt'), { engine }).app);
    opened = await openPage(served.url);
  }, 60_000);

  afterEach(async () => {
    await opened.page.close();
    await engine.close();
    expect(opened.errors).toEqual([]);
  });

  afterAll(() => rmSync(directory, { recursive: true }));

  it('shows what becomes of a file: in the queue, and its end', async () => {
    const { page } = opened;
    await page.setInputFiles('input', { name: 'mine.csv', mimeType: 'text/csv', buffer: Buffer.from('a,b c\n1,2 3') });
    const row = page.locator('li', { hasText: 'mine.csv' });
    await row.locator('text=queued').waitFor();
    await engine.work([analyseUpload]);
    await row.locator('text=succeeded').waitFor();
    expect(await row.locator('.said').textContent()).toBe('2 lines, 4 words, 11 bytes');
    expect(await row.locator('button').isVisible()).toBe(false);
  }, 60_000);

  it('shows what has failed and why, and stops what runs', async () => {
    const { page } = opened;
    await engine.work([analyseUpload], { onError: () => {} });
    await page.click('[data-sample=broken]');
    const broken = page.locator('li', { hasText: 'broken.csv' });
    await broken.locator('text=failed').waitFor();
    expect(await broken.locator('.said').textContent()).toContain('not valid for encoding utf-8');

    await page.click('[data-sample=large]'); // It would take ten seconds.
    const large = page.locator('li', { hasText: 'large.csv' });
    await large.locator('text=running').waitFor();
    await large.locator('progress[value]:not([value="0"])').waitFor();
    await large.locator('button').click();
    await large.locator('text=cancelled').waitFor();
  }, 60_000);

  it('shows what was done before, also to somebody else, who can stop more than a browser has connections', async () => {
    const { page } = opened;
    for (let count = 0; count < 8; count++) await page.click('[data-sample=small]');
    await page.locator('li').nth(7).waitFor();
    const other = await openPage(served.url);
    await other.page.locator('li').nth(9).waitFor();
    expect(await other.page.locator('li').last().textContent()).toContain('Upload');
    await other.page.locator('li', { hasText: 'queued' }).first().locator('button').click();
    await other.page.locator('li', { hasText: 'cancelled' }).first().waitFor();
    await other.page.close();
    expect(other.errors).toEqual([]);
  }, 60_000);

  it('leads to a board, on which a failed upload is tried again', async () => {
    const { page } = opened;
    const worker = await engine.work([analyseUpload], { onError: () => {} });
    await page.click('[data-sample=broken]');
    await page.locator('li', { hasText: 'broken.csv' }).locator('text=failed').waitFor();
    await worker.close();
    const [{ id } = { id: '' }] = await engine.list({ state: 'failed' });
    await page.click('text=all tasks on a board');
    await page.locator('text=After a response').first().waitFor();
    await page.goto(`${served.url}/admin/queue/stored?status=failed`);
    await page.locator('a', { hasText: id }).waitFor();
    await page.click('text=Retry all');
    await page.click('text=Confirm');
    await reaches(engine, id, ({ state }) => state === 'queued');
  }, 60_000);
});
