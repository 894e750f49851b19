// The order of the test files: what waits for servers, leases and compilers begins first, so that the rest runs meanwhile.
// Jest knows how long a file takes from its last run only, and a fresh clone has none.

const { default: Sequencer } = require('@jest/test-sequencer');

const longest = [
  'installed',
  'celery-rabbitmq-node',
  'typescript',
  'project-setups',
  'tutorial',
  'programs',
  'pg-boss-conformance',
  'pg-boss-conformance-operations',
  'bullmq-conformance',
  'bullmq-conformance-operations',
  'bullmq-outages',
  'bullmq-deaths',
  'bullmq-refusals',
  'pg-boss-outages',
  'pg-boss-pglite',
  'pg-boss-operations',
  'pg-boss',
  'sqlite-upkeep',
  'sqlite-conformance',
  'sqlite-files',
  'bullmq-sentinel',
  'celery-workers',
  'celery-rabbitmq-outages',
  'celery-redis-outages',
  'memory-conformance',
  'bullmq-workers',
  'bullmq-operations',
  'attempts',
  'standing-still',
  'runner',
  'types',
  'docs',
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
