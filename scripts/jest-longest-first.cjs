// The order of the test files: what waits for servers, leases and compilers begins first, so that the rest runs meanwhile.
// Jest knows how long a file takes from its last run only, and a fresh clone has none.

const { default: Sequencer } = require('@jest/test-sequencer');

const longest = [
  'installed',
  'typescript',
  'celery-rabbitmq-node',
  'project-setups',
  'tutorial',
  'programs',
  'pg-boss-conformance',
  'pg-boss-pglite',
  'pg-boss-operations',
  'bullmq-outages',
  'bullmq-conformance',
  'celery-workers',
  'sqlite-conformance',
  'sqlite-node',
  'pg-boss-conformance-operations',
  'sqlite-upkeep',
  'durable',
  'pg-boss',
  'attempts',
  'celery-rabbitmq-outages',
  'bullmq-deaths',
  'documented',
  'bullmq-conformance-operations',
  'bullmq-sentinel',
  'bullmq-refusals',
  'deaths',
  'docs',
  'runner',
  'pg-boss-unknown',
  'memory-conformance',
  'celery-redis-outages',
  'engines',
  'pg-boss-deaths',
  'processes',
  'example-page',
  'pg-boss-outages',
  'report',
  'bullmq-workers',
  'example',
  'bullmq',
  'outcome',
  'browser',
  'standing-still',
  'event-stream',
  'pg-boss-transactions',
  'types',
  'bullmq-operations',
];

module.exports = class LongestFirst extends Sequencer {
  sort(tests) {
    return super.sort(tests).sort((a, b) => rank(a.path) - rank(b.path));
  }
};

function rank(path) {
  const index = longest.findIndex((name) => path.endsWith(`/${name}.test.ts`));
  return index === -1 ? longest.length : index;
}
