// node scripts/transactions-postgres.mjs [transactions] [kills]: transactions of an application that enqueue on the pg-boss
// engine, half of them rolled back, in a process that is killed in between. Rows and tasks must agree one to one.

import { createRequire } from 'node:module';

const require = createRequire(import.meta.url);
require('../__tests__/fixtures/typescript.cjs');
const { createStore, startBoss } = require('../__tests__/drivers/fixtures/pg-boss.ts');
const { runTransactions } = require('../__tests__/drivers/fixtures/transactions.ts');

const [count = 1000, kills = 20] = process.argv.slice(2).map(Number);
const { config, remove } = createStore();
const boss = await startBoss(config);
await boss.stop();
try {
  const { transactions, orders, tasks } = await runTransactions(config, count, kills);
  const isEqual = JSON.stringify(orders) === JSON.stringify(tasks);
  console.log(
    `${transactions} transactions, ${kills} kills: ${orders.length} rows, ${tasks.length} tasks, equal: ${isEqual}`,
  );
  if (!isEqual) process.exitCode = 1;
} finally {
  await remove();
}
