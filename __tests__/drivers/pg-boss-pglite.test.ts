// The pg-boss engine over PGlite, which needs no server.

import { pgBoss } from '../../lib/drivers/pg-boss/index.js';
import { task } from '../../lib/index.js';
import { nativeRequire, startBoss } from './fixtures/pg-boss.js';
import { send } from './fixtures/send.js';
import { over, retries } from './fixtures/watched.js';
import { describeWith } from './requirements.js';

describeWith({ node: 22 }, 'pg-boss, over PGlite', () => {
  test('runs, retries and deduplicates tasks', async () => {
    const { PGlite } = nativeRequire('@electric-sql/pglite') as { PGlite: new () => { close(): Promise<void> } };
    const { fromPglite } = nativeRequire('pg-boss') as { fromPglite: (pglite: object) => object };
    const pglite = new PGlite();
    const boss = await startBoss({ db: fromPglite(pglite), backend: 'pglite' });
    const engine = pgBoss(boss);
    let failures = 0;
    const flaky = task('flaky', (value: string) => {
      if (failures++ < 2) throw new Error('not yet');
      return value;
    });
    const message = { name: 'flaky', args: ['done \0'], key: 'k', retries: retries(2) };
    const { id } = await send(engine, message);
    expect(await send(engine, message)).toEqual({ id });
    await engine.work([flaky]);
    expect(await over(engine, id)).toMatchObject({ state: 'succeeded', attempts: 3, result: 'done \0' });
    await engine.close();
    await boss.stop();
    await pglite.close();
  }, 180_000); // PostgreSQL in WebAssembly starts slowly where the processor is busy.
});
