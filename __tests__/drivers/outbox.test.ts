// The outbox in docs/how-to/transactions.md, as a reader copies it: each committed row is enqueued, at least once.

import { randomUUID } from 'node:crypto';
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { Pool } from 'pg';
import ts from 'typescript';
import { task } from '../../lib/index.js';
import { memory } from '../../lib/testing/index.js';
import { describeWith } from './requirements.js';

type SendOutbox = () => Promise<void>;

describeWith({ server: ['PostgreSQL', 5432] }, 'the outbox of the documentation', () => {
  const page = readFileSync(join(__dirname, '../../docs/how-to/transactions.md'), 'utf8');
  const [code = ''] = /^async function sendOutbox.*?^}$/ms.exec(page) ?? [];
  const sendReceipt = task('send receipt', (_order: number) => {});
  const schema = `outbox_${randomUUID().replaceAll('-', '')}`;
  const pool = new Pool({
    connectionString: 'postgres://postgres@127.0.0.1:5432/test',
    options: `-c search_path=${schema}`,
  });

  beforeAll(async () => {
    await pool.query(`CREATE SCHEMA ${schema}`);
    await pool.query('CREATE TABLE outbox (id serial, order_id int)');
  });

  afterAll(async () => {
    await pool.query(`DROP SCHEMA ${schema} CASCADE`);
    await pool.end();
  });

  function outboxOf(values: { pool: object; engine: object }): SendOutbox {
    const make = new Function('pool', 'engine', 'sendReceipt', `${ts.transpile(code)}; return sendOutbox;`);
    return make(values.pool, values.engine, sendReceipt);
  }

  it('enqueues what was committed, and after a crash what it has left', async () => {
    const engine = memory();
    await pool.query('INSERT INTO outbox (order_id) VALUES (1), (2), (3)');
    await pool.query('BEGIN; INSERT INTO outbox (order_id) VALUES (4); ROLLBACK');
    const crashes = {
      query: (text: string, values?: unknown[]) =>
        text.startsWith('DELETE') && String(values) === '2'
          ? Promise.reject(new Error('crash'))
          : pool.query(text, values),
    };
    await expect(outboxOf({ pool: crashes, engine })()).rejects.toThrow('crash');
    expect(engine.enqueued(sendReceipt)).toEqual([[1], [2]]);
    await outboxOf({ pool, engine })();
    expect(engine.enqueued(sendReceipt)).toEqual([[1], [2], [3]]);
    expect((await pool.query('SELECT * FROM outbox')).rows).toEqual([]);
  });
});
