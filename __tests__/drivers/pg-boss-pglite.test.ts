// The pg-boss engine over PGlite, which needs no server and lives in one process: the conformance suite.

import { randomUUID } from 'node:crypto';
import { join } from 'node:path';
import { task } from '../../lib/index.js';
import { describeConformance, type EngineStore } from './conformance.js';
import { closePglite, createEngine, pglite } from './fixtures/pglite.js';
import { describeWith } from './requirements.js';

/** PostgreSQL in WebAssembly starts slowly where the processor is busy. */
const patience = 180_000;

describeWith({ node: 22 }, 'pg-boss, over PGlite', () => {
  afterAll(closePglite);

  function createStore(): EngineStore & { config: { schema: string } } {
    const schema = `tasks_${randomUUID().replaceAll('-', '')}`;
    return {
      config: { schema },
      remove: async () => void (await pglite().exec(`DROP SCHEMA IF EXISTS ${schema} CASCADE`)),
    };
  }

  describeConformance('pg-boss', {
    module: join(__dirname, 'fixtures/pglite.ts'),
    lacks: ['processes'],
    createStore,
    patience,
  });

  it(
    'enqueues within a transaction of PGlite',
    async () => {
      const { config, remove } = createStore();
      const engine = await createEngine(config);
      await engine.ready();
      const keyed = task('a', (value: number) => value).with({ key: 'k' });
      await pglite().transaction((transaction) => engine.within(transaction).enqueue(keyed, 1));
      const rolledBack = pglite().transaction(async (transaction) => {
        await engine.within(transaction).enqueueMany(task('b'), [[], []]);
        throw new Error('no');
      });
      await expect(rolledBack).rejects.toThrow('no');
      expect(await engine.list()).toMatchObject([{ name: 'a', args: [1] }]);
      await engine.close();
      await remove();
    },
    patience,
  );
});
